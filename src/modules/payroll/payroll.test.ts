import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database } from '../../engine/database/database.ts'
import { migrate } from '../../engine/database/migrate.ts'
import { createServer, serve } from '../../engine/http/server.ts'
import { startHints } from '../../engine/outbox/hints.ts'
import { routeEvents } from '../../engine/outbox/routes.ts'
import { silentObserver } from '../../engine/telemetry/observer.ts'
import { startWorker } from '../../engine/worker/worker.ts'
import { systemClock } from '../../kernel/clock.ts'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import { postgresTransport } from '../../transports/postgres/index.ts'
import { hireEmployee, personnel } from '../personnel/index.ts'
import type { Account } from './account.ts'
import { payroll } from './index.ts'

let home: TestDatabase
let database: Database
const context = { companyId: 'one' }

beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  await migrate(database, [personnel.migrations, payroll.migrations])
})
afterAll(async () => {
  await database.close()
  await home.drop()
})

const hire = (annualSalary = 42_000_000n) =>
  hireEmployee({ database, clock: systemClock, newId }, context, {
    name: '김하늘',
    annualSalary,
    joinedOn: '2026-03-02',
  })

test('everybody who is hired gets one account, although nothing but the delivery keeps it from being two', async () => {
  const outcomes = new Map<string, number>()
  const observer = {
    ...silentObserver,
    handled: (_consumer: string, outcome: string, count: number) =>
      void outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + count),
  }
  await using cleanup = new AsyncDisposableStack()
  const hints = await startHints(database)
  cleanup.defer(() => hints.close())
  const transport = postgresTransport({ database, hints })
  const subscriptions = payroll.handlers({ clock: systemClock, newId })
  await routeEvents(database, 'database')
  // Two workers that compete for every event.
  for (let i = 0; i < 2; i++) {
    const worker = await startWorker({ database, transport, subscriptions, observer })
    cleanup.defer(() => worker.drain())
  }
  const people = await Promise.all(Array.from({ length: 200 }, (_, index) => hire(BigInt(index) * 1_000_000n)))
  await waitFor(async () => (await accountsOf('one')).length >= 200, { what: 'an account for each of 200 people' })

  const accounts = await accountsOf('one')
  const bySalary = (a: { annualSalary: bigint }, b: { annualSalary: bigint }) => Number(a.annualSalary - b.annualSalary)
  expect(accounts.sort(bySalary).map(({ employeeId, eventId }) => ({ employeeId, eventId }))).toEqual(
    people.sort(bySalary).map(({ id, eventId }) => ({ employeeId: id, eventId })),
  )
  // A second delivery would have met the unique constraint: a failed attempt, or a dead letter.
  await waitFor(() => outcomes.get('done') === 200, { what: '200 done' })
  expect(Object.fromEntries(outcomes)).toEqual({ done: 200 })
})

test('the insert itself does not swallow a second delivery', async () => {
  const { id, eventId, ...rest } = await hire()
  const [subscription] = payroll.handlers({ clock: systemClock, newId })
  const event = { eventId, companyId: 'twice', data: { employeeId: id, ...rest } }
  if (subscription?.kind !== 'handle') throw new Error('opening an account is an effect in the database')
  const deliver = () => database.transaction(async (tx) => subscription.handle(event as never, tx))
  await deliver()
  await expect(deliver()).rejects.toMatchObject({ code: '23505' })
})

test('accounts are listed page by page, or for one employee', async () => {
  const server = createServer({ log: { error() {}, debug() {} }, companyOf: () => 'listed' })
  serve(server, payroll.routes({ database }))
  const [subscription] = payroll.handlers({ clock: systemClock, newId })
  const employees = [newId(), newId(), newId()]
  for (const employeeId of employees) {
    const event = { eventId: newId(), companyId: 'listed', data: { employeeId, annualSalary: 36_000_000n } }
    if (subscription?.kind === 'handle')
      await database.transaction(async (tx) => subscription.handle(event as never, tx))
  }
  const url = '/api/v1/payroll/accounts'
  const get = async (query: string) =>
    (await server.inject(url + query)).json<{ items: Account[]; nextCursor: string | null }>()
  const first = await get('?limit=2')
  expect(first.items.map(({ employeeId }) => employeeId)).toEqual(employees.slice(0, 2))
  expect((await get(`?limit=2&cursor=${first.nextCursor}`)).items.map(({ employeeId }) => employeeId)).toEqual(
    employees.slice(2),
  )
  const one = await get(`?employeeId=${employees[1]}`)
  expect(one.items).toMatchObject([{ employeeId: employees[1], annualSalary: 36_000_000, eventId: expect.any(String) }])
  expect((await server.inject(`${url}?employeeId=7`)).statusCode).toBe(400)
  await server.close()
})

async function accountsOf(companyId: string) {
  return database.sql<{ employeeId: string; eventId: string; annualSalary: bigint }>`
    select employee_id as "employeeId", event_id as "eventId", annual_salary as "annualSalary"
    from payroll.accounts where company_id = ${companyId}`
}
