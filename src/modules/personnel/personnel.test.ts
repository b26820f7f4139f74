import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database } from '../../engine/database/database.ts'
import { migrate } from '../../engine/database/migrate.ts'
import { createServer, serve } from '../../engine/http/server.ts'
import { systemClock } from '../../kernel/clock.ts'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import type { Employee } from './employee.ts'
import { personnel } from './index.ts'

const path = '/api/v1/employees'
const someone = { name: '김하늘', annualSalary: 42_000_000, joinedOn: '2026-03-02' }

let home: TestDatabase
let database: Database
let server: FastifyInstance

beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  await migrate(database, [personnel.migrations])
  server = createServer({
    log: { error() {}, debug() {} },
    companyOf: ({ headers }) => String(headers['x-company'] ?? 'one'),
  })
  serve(server, personnel.routes({ database, clock: systemClock, newId }))
})
afterAll(async () => {
  await server.close()
  await database.close()
  await home.drop()
})

const post = (body: object, company = 'one') =>
  server.inject({ method: 'POST', url: path, payload: body, headers: { 'x-company': company } })

const get = (url: string, company = 'one') => server.inject({ method: 'GET', url, headers: { 'x-company': company } })

describe('hiring', () => {
  test('answers with the employee, where it is, and the event', async () => {
    const response = await post(someone)
    expect(response.statusCode).toBe(201)
    const hired = response.json<Employee & { eventId: string }>()
    expect(hired).toMatchObject(someone)
    expect(response.headers['location']).toBe(`${path}/${hired.id}`)
    const found = await get(`${path}/${hired.id}`)
    const { eventId, ...employee } = hired
    expect(found.json()).toEqual(employee)
    const [event] = await database.sql<{ envelope: string; key: string }>`
      select envelope, key from kerp.events where event_id = ${eventId}`
    expect(event?.key).toBe(hired.id)
    expect(JSON.parse(event!.envelope)).toMatchObject({
      eventType: 'employee.created',
      companyId: 'one',
      correlationId: response.headers['x-request-id'],
      traceparent: response.headers['traceparent'],
      data: { employeeId: hired.id, ...someone },
    })
  })

  test.each([
    ['trimmed', '  이순신 ', '이순신'],
    ['quotes and all', `O'Brien "the <b>" \\ ; drop table--`, `O'Brien "the <b>" \\ ; drop table--`],
    ['emoji', '👩‍👩‍👧‍👦🇰🇷', '👩‍👩‍👧‍👦🇰🇷'],
    ['100 emoji', '😀'.repeat(100), '😀'.repeat(100)],
    ['Korean typed on a Mac', '한글'.normalize('NFD'), '한글'],
  ])('keeps a name: %s', async (_what, name, kept) => {
    const response = await post({ ...someone, name })
    expect(response.statusCode).toBe(201)
    const { id } = response.json<Employee>()
    expect((await get(`${path}/${id}`)).json<Employee>().name).toBe(kept)
  })

  test.each([[0], [1_000_000_000_000]])('keeps a salary of %d', async (annualSalary) => {
    expect((await post({ ...someone, annualSalary })).json()).toMatchObject({ annualSalary })
  })

  test.each([
    ['name', { name: '' }],
    ['name', { name: '   ' }],
    ['name', { name: 'a\u0000b' }],
    ['name', { name: '가'.repeat(101) }],
    ['name', { name: 7 }],
    ['name', { name: undefined }],
    ['annualSalary', { annualSalary: -1 }],
    ['annualSalary', { annualSalary: 0.5 }],
    ['annualSalary', { annualSalary: '42000000' }],
    ['annualSalary', { annualSalary: 1_000_000_000_001 }],
    ['annualSalary', { annualSalary: null }],
    ['joinedOn', { joinedOn: '2026-02-30' }],
    ['joinedOn', { joinedOn: '2025-02-29' }],
    ['joinedOn', { joinedOn: '0000-01-01' }],
    ['joinedOn', { joinedOn: '2026-3-2' }],
    ['joinedOn', { joinedOn: '2026-03-02T00:00:00Z' }],
    ['', { nmae: '김' }],
  ])('refuses a wrong %s: %o', async (wrong, change) => {
    const before = await countAll()
    const response = await post({ ...someone, ...change })
    expect(response.statusCode).toBe(400)
    expect(response.json<{ errors: { path: string }[] }>().errors.map((error) => error.path)).toEqual([wrong])
    expect(await countAll()).toEqual(before)
  })

  async function countAll() {
    const [counts] = await database.sql`
      select (select count(*) from personnel.employees) as employees, (select count(*) from kerp.events) as events`
    return counts
  }
})

describe('looking', () => {
  test('lists in the order of entry, page by page', async () => {
    const ids: string[] = []
    for (let i = 0; i < 5; i++) ids.push((await post(someone, 'paged')).json<Employee>().id)
    const seen: string[] = []
    let query = '?limit=2'
    for (;;) {
      const page = (await get(path + query, 'paged')).json<{ items: Employee[]; nextCursor: string | null }>()
      seen.push(...page.items.map(({ id }) => id))
      if (page.nextCursor === null) break
      query = `?limit=2&cursor=${page.nextCursor}`
    }
    expect(seen).toEqual(ids)
  })

  test("shows nothing of another company's", async () => {
    const { id } = (await post(someone, 'two')).json<Employee>()
    expect((await get(`${path}/${id}`, 'three')).statusCode).toBe(404)
    expect((await get(path, 'three')).json()).toEqual({ items: [], nextCursor: null })
  })

  test('tells what is not there from what cannot be an id', async () => {
    expect((await get(`${path}/${newId()}`)).statusCode).toBe(404)
    expect((await get(`${path}/7`)).statusCode).toBe(400)
  })
})
