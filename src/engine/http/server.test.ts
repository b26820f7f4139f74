import { connect } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { markLost } from '../database/connection.ts'
import { KerpError } from '../../kernel/errors.ts'
import { textSchema, wonSchema } from '../../kernel/schema.ts'
import { closeServer, listen } from './listen.ts'
import { beforeAll as firstId, pageOf, pageQuery, toPage } from './page.ts'
import type { Problem } from './problem.ts'
import { route } from './route.ts'
import { createServer, serve } from './server.ts'

const logged: string[] = []
const log = { error: (_details: object, message: string) => void logged.push(message), debug() {} }
const ids = Array.from({ length: 5 }, (_, index) => `0190a1b2-0000-7000-8000-00000000000${index}`)

const thrown: Record<string, unknown> = {
  secret: new Error('password of root is hunter2'),
  nothing: undefined,
  conflict: new KerpError('CONFLICT', 'there is one already'),
  missing: new KerpError('NOT_FOUND', 'there is none'),
  away: new KerpError('DATABASE_UNREACHABLE', 'cannot connect to postgres://root@10.0.0.1/'),
  full: new KerpError('POOL_EXHAUSTED', 'all 10 are in use'),
  cut: markLost(Object.assign(new Error('terminating connection due to administrator command'), { code: '57P01' })),
}

const routes = [
  route({
    method: 'POST',
    path: '/things',
    summary: 'Make a thing',
    body: z.strictObject({ name: textSchema(10), price: wonSchema() }),
    responses: { 201: z.object({ name: z.string(), price: wonSchema(), company: z.string(), trace: z.string() }) },
    handle: async ({ body, context }) => {
      const { companyId: company, traceparent: trace = '' } = context
      return {
        status: 201,
        body: { ...body, company, trace, inner: 'not declared' },
        headers: { location: '/things/1' },
      }
    },
  }),
  route({
    method: 'GET',
    path: '/things',
    summary: 'List things',
    query: z.strictObject(pageQuery),
    responses: { 200: pageOf(z.object({ id: z.string() })) },
    handle: async ({ query: { cursor = firstId, limit } }) => {
      const rows = ids.filter((id) => id > cursor).slice(0, limit + 1)
      return {
        status: 200,
        body: toPage(
          rows.map((id) => ({ id })),
          limit,
          ({ id }) => id,
        ),
      }
    },
  }),
  route({
    method: 'GET',
    path: '/fail/:how',
    summary: 'Fail',
    params: z.object({ how: z.string() }),
    responses: { 200: z.object({}) },
    handle: ({ params: { how } }) => Promise.reject(thrown[how]),
  }),
]

let server: FastifyInstance
let address: string

beforeAll(async () => {
  server = createServer({ log, companyOf: () => 'acme' })
  serve(server, routes)
  address = await listen(server, { host: '127.0.0.1', port: 0 })
})
afterAll(() => closeServer(server, 100))

async function post(
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = { 'content-type': 'application/json' },
) {
  return fetch(`${address}/things`, { method: 'POST', body, headers })
}

async function problemOf(response: Response, status: number): Promise<Problem> {
  expect(response.status).toBe(status)
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  const problem = (await response.json()) as Problem
  expect(problem).toMatchObject({
    status,
    type: expect.stringMatching(/^urn:kerp:problem:[a-z-]+$/),
    title: expect.any(String),
  })
  expect(problem.requestId).toBe(response.headers.get('x-request-id'))
  return problem
}

describe('a good request', () => {
  test('is answered with what the response schema declares, money as a number', async () => {
    const response = await post('{"name":"  탁자 😀 ","price":9007199254740991}')
    expect(response.status).toBe(201)
    expect(response.headers.get('location')).toBe('/things/1')
    const body = (await response.json()) as object
    expect(body).toEqual({ name: '탁자 😀', price: 9007199254740991, company: 'acme', trace: expect.any(String) })
  })

  test("goes on with the caller's trace and request id, or starts its own", async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const headers = { 'content-type': 'application/json', traceparent, 'x-request-id': 'abc-1' }
    const given = await post('{"name":"a","price":1}', headers)
    expect(await given.json()).toMatchObject({ trace: traceparent })
    expect(given.headers.get('x-request-id')).toBe('abc-1')
    const bad = await post('{"name":"a","price":1}', { ...headers, traceparent: 'x', 'x-request-id': 'a b<c>' })
    expect(await bad.json()).toMatchObject({ trace: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/) })
    expect(bad.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
})

describe('what is wrong with the input is told', () => {
  test('field by field', async () => {
    const problem = await problemOf(await post('{"name":"","price":1.5,"colour":"red"}'), 400)
    expect(problem.code).toBe('INPUT_INVALID')
    expect(problem.errors?.map(({ path }) => path)).toEqual(['name', 'price', ''])
    expect(problem.errors?.at(-1)?.message).toContain('colour')
  })

  test.each([
    ['not JSON', '{"name":'],
    ['empty', ''],
    ['blank', '  \n'],
    ['a list', '[]'],
    ['null', 'null'],
    ['text with NUL', '{"name":"a\\u0000b","price":1}'],
    ['half a surrogate pair', '{"name":"\\ud800","price":1}'],
    ['an amount as text', '{"name":"a","price":"1"}'],
    ['an amount too large to be exact', '{"name":"a","price":9007199254740993}'],
    ['an infinite amount', '{"name":"a","price":1e999}'],
    ['a prototype', '{"name":"a","price":1,"__proto__":{"admin":true}}'],
    ['very deep', '['.repeat(100_000) + ']'.repeat(100_000)],
  ])('%s: 400', async (_what, body) => {
    expect((await problemOf(await post(body), 400)).code).toBe('INPUT_INVALID')
  })

  test('bytes that are not UTF-8: 400', async () => {
    const bytes = Uint8Array.from([...Buffer.from('{"name":"'), 0xff, 0xfe, ...Buffer.from('","price":1}')])
    expect((await problemOf(await post(bytes), 400)).detail).toMatch(/not JSON/)
  })

  test('a body of another type: 415', async () => {
    expect(
      (await problemOf(await post('name=a', { 'content-type': 'application/x-www-form-urlencoded' }), 415)).code,
    ).toBe('MEDIA_TYPE_UNSUPPORTED')
    await problemOf(await post('{}', { 'content-type': 'text/plain' }), 415)
  })

  test('10 MB: 413, which arrives although the client still sends', async () => {
    const problem = await problemOf(await post(`"${'x'.repeat(10_000_000)}"`), 413)
    expect(problem.code).toBe('BODY_TOO_LARGE')
  })

  test('10 MB without a length: 413 too', async () => {
    const stream = new ReadableStream({
      start(controller) {
        for (let i = 0; i < 100; i++) controller.enqueue(new Uint8Array(100_000).fill(120))
        controller.close()
      },
    })
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${address}/things`, {
      method: 'POST',
      body: stream,
      headers,
      duplex: 'half',
    } as RequestInit)
    await problemOf(response, 413)
  })
})

describe('addresses', () => {
  test('an unknown one: 404', async () => {
    expect(await problemOf(await fetch(`${address}/nothing?x=1`), 404)).toMatchObject({
      code: 'NOT_FOUND',
      instance: '/nothing',
    })
  })

  test('a method that is not served there: 405, with those that are', async () => {
    const response = await fetch(`${address}/things`, { method: 'DELETE' })
    expect(response.headers.get('allow')).toBe('GET, HEAD, POST')
    expect((await problemOf(response, 405)).code).toBe('METHOD_NOT_ALLOWED')
    expect((await fetch(`${address}/fail/x`, { method: 'PUT' })).headers.get('allow')).toBe('GET, HEAD')
  })

  test('one that cannot be decoded: 400', async () => {
    expect((await problemOf(await fetch(`${address}/fail/%zz`), 400)).code).toBe('REQUEST_INVALID')
  })

  test('what is not HTTP: 400', async () => {
    const answer = await new Promise<string>((resolve) => {
      let text = ''
      const socket = connect(Number(new URL(address).port), '127.0.0.1', () => socket.write('hello\r\n\r\n'))
      socket.on('data', (chunk) => (text += chunk.toString())).on('close', () => resolve(text))
    })
    expect(answer).toMatch(/^HTTP\/1\.1 400 [^]*application\/problem\+json[^]*REQUEST_INVALID/)
  })
})

describe('a failure inside', () => {
  test.each([
    ['secret', 500, 'INTERNAL'],
    ['nothing', 500, 'INTERNAL'],
    ['conflict', 409, 'CONFLICT'],
    ['missing', 404, 'NOT_FOUND'],
    ['away', 503, 'DATABASE_UNREACHABLE'],
    ['full', 503, 'POOL_EXHAUSTED'],
    ['cut', 503, 'DATABASE_UNREACHABLE'],
  ])('%s: %i', async (how, status, code) => {
    const response = await fetch(`${address}/fail/${how}`)
    expect(response.headers.get('retry-after')).toBe(status === 503 ? '2' : null)
    const problem = await problemOf(response, status)
    expect(problem.code).toBe(code)
    expect(JSON.stringify(problem)).not.toMatch(/hunter2|10\.0\.0\.1|administrator/)
  })

  test('is told to the log', async () => {
    await fetch(`${address}/fail/secret`)
    expect(logged.at(-1)).toContain('hunter2')
  })
})

describe('pages', () => {
  type Page = { items: { id: string }[]; nextCursor: string | null }
  const list = async (query: string) => fetch(`${address}/things${query}`)

  test('follow one another until the end', async () => {
    const seen: string[] = []
    let cursor: string | null = ''
    for (let pages = 0; cursor !== null && pages < 10; pages++) {
      const page = (await (await list(`?limit=2${cursor && `&cursor=${cursor}`}`)).json()) as Page
      seen.push(...page.items.map(({ id }) => id))
      cursor = page.nextCursor
    }
    expect(seen).toEqual(ids)
  })

  test.each([
    '?limit=0',
    '?limit=201',
    '?limit=x',
    '?limit=',
    '?limit=-1',
    '?limit=1e1',
    '?limit=1&limit=2',
    '?cursor=x',
    '?cursor=',
    '?curser=x',
  ])('%s: 400', async (query) => {
    expect((await problemOf(await list(query), 400)).errors?.[0]?.in).toBe('query')
  })
})

test('a server that closes finishes what it began, and cuts off what does not end', async () => {
  const slow = createServer({ log, companyOf: () => 'acme' })
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  slow.get('/slow', async () => {
    begin()
    await gate.promise
    return { done: true }
  })
  const url = await listen(slow, { host: '127.0.0.1', port: 0 })
  const answer = fetch(`${url}/slow`)
  await begun
  const closed = closeServer(slow, 5_000)
  gate.resolve()
  expect(await (await answer).json()).toEqual({ done: true })
  await closed
  await expect(fetch(url)).rejects.toThrow()
})

test('a port that is taken is told with what to do', async () => {
  const second = createServer({ log, companyOf: () => 'acme' })
  const port = Number(new URL(address).port)
  await expect(listen(second, { host: '127.0.0.1', port })).rejects.toMatchObject({
    code: 'PORT_IN_USE',
    hint: expect.stringContaining(`KERP_PORT=${port + 1}`),
  })
  await second.close()
})
