import type { Database } from '../../src/engine/database/database.ts'
import { sleep, systemClock } from '../../src/kernel/clock.ts'

export interface HireOptions {
  readonly count: number
  /** They are spread over this time, so that there is always something under way. */
  readonly overMs: number
  /** Requests under way at most. */
  readonly concurrency: number
}

export interface Hired {
  /** The ids that were answered with 201, one for each hire asked for. */
  readonly ids: Set<string>
  /** Requests that were answered with 503 or not at all: some of them may have been carried out. */
  readonly retries: number
  readonly tookMs: number
}

/** As long as a client that does not give up would try. */
const patienceMs = 60_000

export async function hireMany(address: string, { count, overMs, concurrency }: HireOptions): Promise<Hired> {
  const began = systemClock.monotonic()
  const ids = new Set<string>()
  let retries = 0
  let next = 0

  async function clerk(): Promise<void> {
    for (let number = next++; number < count; number = next++) {
      const dueMs = began + (number * overMs) / count
      const early = dueMs - systemClock.monotonic()
      if (early > 0) await sleep(systemClock, early)
      ids.add(await hireOne(number))
    }
  }

  async function hireOne(number: number): Promise<string> {
    const until = systemClock.monotonic() + patienceMs
    for (;;) {
      const id = await tryToHire(address, number)
      if (id !== undefined) return id
      retries++
      if (systemClock.monotonic() > until) throw new Error(`hire ${number} found no answer within ${patienceMs} ms`)
      await sleep(systemClock, 50)
    }
  }

  await Promise.all(Array.from({ length: concurrency }, clerk))
  return { ids, retries, tookMs: systemClock.monotonic() - began }
}

/** The employee's id, or undefined when it is worth another try. Every other answer is a failure of the test. */
async function tryToHire(address: string, number: number): Promise<string | undefined> {
  const response = await ask(address, number)
  if (response === undefined || response.status === 503) return undefined
  if (response.status !== 201) throw new Error(`hire ${number}: ${response.status} ${response.body}`)
  return (JSON.parse(response.body) as { id: string }).id
}

async function ask(address: string, number: number): Promise<{ status: number; body: string } | undefined> {
  try {
    const response = await fetch(`${address}/api/v1/employees`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: `직원 ${number}`, annualSalary: 30_000_000 + number, joinedOn: '2026-03-02' }),
      signal: AbortSignal.timeout(30_000),
    })
    return { status: response.status, body: await response.text() }
  } catch {
    return undefined
  }
}

export interface Books {
  readonly employees: number
  readonly accounts: number
  /** Employees without an account, and accounts without an employee or with another salary. */
  readonly mismatches: number
  readonly deliveries: number
  readonly outbox: number
  readonly dead: number
}

/** The tables are the truth: a hire whose answer was lost may be there. */
export async function readBooks(database: Database): Promise<Books> {
  const [books] = await database.sql<Books>`
    select (select count(*)::int from personnel.employees) as employees,
      (select count(*)::int from payroll.accounts) as accounts,
      (select count(*)::int from personnel.employees e full join payroll.accounts a
         on a.company_id = e.company_id and a.employee_id = e.id and a.annual_salary = e.annual_salary
       where e.id is null or a.employee_id is null) as mismatches,
      (select count(*)::int from kerp.deliveries) as deliveries,
      (select count(*)::int from kerp.outbox_events) as outbox,
      (select count(*)::int from kerp.dead_letters) as dead`
  return books!
}

/** Ids that were acknowledged and are not there: must be none. */
export async function findLost(database: Database, ids: ReadonlySet<string>): Promise<string[]> {
  const rows = await database.sql<{ id: string }>`
    select asked.id from unnest(${[...ids]}::uuid[]) as asked (id) where not exists (select from personnel.employees e where e.id = asked.id)`
  return rows.map(({ id }) => id)
}
