import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { testDatabase } from '../testing/postgres.ts'
import type { TestDatabase } from '../testing/postgres.ts'
import { waitFor } from '../testing/wait.ts'
import { readConfig } from './config.ts'
import { createLog } from './log.ts'
import type { App } from './start.ts'
import { start } from './start.ts'

const log = createLog('silent')
const someone = { name: '이순신 "😀"', annualSalary: 42_000_000, joinedOn: '2026-03-02' }

let home: TestDatabase
let app: App

beforeAll(async () => {
  home = await testDatabase()
  app = await start(await config(), { log })
})
afterAll(async () => {
  await app.stop()
  await home.drop()
})

async function config(env: NodeJS.ProcessEnv = {}) {
  return readConfig({}, { DATABASE_URL: home.url, KERP_PORT: String(await freePort()), ...env })
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}

async function get<Body>(path: string, from = app): Promise<Body> {
  return (await fetch(from.address + path)).json() as Promise<Body>
}

test('hiring has its effect, and its whole life can be looked up', async () => {
  const response = await fetch(`${app.address}/api/v1/employees`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(someone),
  })
  expect(response.status).toBe(201)
  const { id, eventId } = (await response.json()) as { id: string; eventId: string }

  const account = await waitFor(async () => {
    const { items } = await get<{ items: object[] }>(`/api/v1/payroll/accounts?employeeId=${id}`)
    return items[0]
  })
  expect(account).toMatchObject({ employeeId: id, eventId, annualSalary: someone.annualSalary })

  const life = await waitFor(async () => {
    const found = await get<{ consumers: { state: string }[] }>(`/api/v1/events/${eventId}`)
    return found.consumers[0]?.state === 'done' && found
  })
  expect(life).toMatchObject({
    eventId,
    eventType: 'employee.created',
    companyId: 'demo',
    key: id,
    correlationId: response.headers.get('x-request-id'),
    data: { employeeId: id, ...someone },
    consumers: [{ consumer: 'payroll.employee.created', state: 'done', attempts: 1, afterMs: expect.any(Number) }],
  })
  const recent = await get<{ items: { eventId: string }[] }>('/api/v1/events?type=employee.created&limit=1')
  expect(recent.items).toMatchObject([{ eventId }])
})

test('an event that is not there: 404', async () => {
  const response = await fetch(`${app.address}/api/v1/events/0190a1b2-0000-7000-8000-000000000000`)
  expect([response.status, response.headers.get('content-type')]).toEqual([404, 'application/problem+json'])
})

test('tells how it is', async () => {
  expect(await get('/healthz')).toMatchObject({ status: 'ok', name: 'kerp' })
  expect(await get('/readyz')).toEqual({ status: 'ready' })
  const metrics = await (await fetch(`${app.address}/metrics`)).text()
  expect(metrics).toMatch(/^kerp_events_handled_total\{consumer="payroll.employee.created",outcome="done"\} \d+$/m)
  expect(metrics).toMatch(/^kerp_outbox_rows 0$/m)
  expect(await (await fetch(`${app.address}/`)).text()).toContain('/openapi.json')
  const { paths } = await get<{ paths: object }>('/openapi.json')
  expect(Object.keys(paths).sort()).toEqual([
    '/api/v1/employees',
    '/api/v1/employees/{id}',
    '/api/v1/events',
    '/api/v1/events/{eventId}',
    '/api/v1/payroll/accounts',
  ])
})

test('without the role api, only how it is can be asked, and only where a port was chosen', async () => {
  const quiet = await start(readConfig({}, { DATABASE_URL: home.url, KERP_ROLES: 'worker' }), { log })
  expect(quiet.address).toBeUndefined()
  await quiet.stop()
  const worker = await start(await config({ KERP_ROLES: 'worker' }), { log })
  expect(await get('/readyz', worker)).toEqual({ status: 'ready' })
  expect((await fetch(`${worker.address}/api/v1/employees`)).status).toBe(404)
  await worker.stop()
})

test('while the database refuses connections it is alive but not ready, and recovers by itself', async () => {
  const name = new URL(home.url).pathname.slice(1)
  const admin = await (await import('../engine/database/database.ts')).openDatabase({ url: serverUrl(), max: 1 })
  await admin.query(`alter database ${name} allow_connections false`)
  await admin.sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`
  const refused = await waitFor(async () => {
    const response = await fetch(`${app.address}/readyz`)
    return response.status === 503 && response
  })
  expect(refused.headers.get('retry-after')).toBe('2')
  expect(await refused.json()).toMatchObject({ code: 'NOT_READY', errors: [{ path: 'database' }] })
  expect(await get('/healthz')).toMatchObject({ status: 'ok' })
  expect(await (await fetch(`${app.address}/metrics`)).text()).toContain('kerp_database_up 0')
  expect((await fetch(`${app.address}/api/v1/employees`)).status).toBe(503)

  await admin.query(`alter database ${name} allow_connections true`)
  await admin.close()
  await waitFor(async () => (await fetch(`${app.address}/readyz`)).status === 200)
})

function serverUrl(): string {
  return Object.assign(new URL(home.url), { pathname: '/postgres' }).toString()
}

test('a port that is taken is told before anything is started', async () => {
  const port = new URL(app.address!).port
  await expect(start(await config({ KERP_PORT: port }), { log })).rejects.toMatchObject({ code: 'PORT_IN_USE' })
})

test.each([
  ['a host that does not exist', { host: 'nowhere.invalid' }],
  ['a wrong password', { username: 'nobody', password: 'wrong' }],
  ['a missing database', { pathname: '/not_there' }],
])(
  '%s is told at once, without the password',
  async (_what, change) => {
    const wrong = Object.assign(new URL(home.url), change)
    const began = Date.now()
    const failure = await start(await config({ DATABASE_URL: wrong.toString() }), { log }).catch(
      (error: unknown) => error,
    )
    expect(failure).toMatchObject({ code: 'DATABASE_UNREACHABLE', hint: expect.stringContaining('DATABASE_URL') })
    expect(String(failure)).not.toContain(wrong.password)
    expect(Date.now() - began).toBeLessThan(8_000)
  },
  15_000,
)
