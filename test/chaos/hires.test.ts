import { afterEach, expect, test } from 'vitest'
import type { Database } from '../../src/engine/database/database.ts'
import { openDatabase } from '../../src/engine/database/database.ts'
import { routeEvents } from '../../src/engine/outbox/routes.ts'
import { sleep, systemClock } from '../../src/kernel/clock.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Fleet } from './fleet.ts'
import { startFleet } from './fleet.ts'
import type { Hired, HireOptions } from './hires.ts'
import { findLost, hireMany, readBooks } from './hires.ts'
import type { KillablePostgres } from './postgres.ts'
import { killablePostgres } from './postgres.ts'
import { endAll } from './processes.ts'

afterEach(endAll)

const settleMs = 30_000

test('10,000 hires open 10,000 accounts while processes and Postgres are killed', { timeout: 120_000 }, async () => {
  await using postgres = await killablePostgres()
  await using fleet = await startFleet(
    postgres.url,
    ['api', 'relay', 'relay', 'worker', 'worker', 'worker'],
    ['relay', 'worker'],
  )
  await using database = await openBooks(postgres)

  const killing = killEverySecond(fleet, { times: 20, postgres, at: 10 })
  const hired = await hireUnderFire(fleet, { count: 10_000, overMs: 20_000, concurrency: 40 }, killing)

  const settledMs = await untilSettled(database.books, fleet, hired)
  expect(fleet.losses()).toEqual([])
  tell('straight to the consumers', hired, fleet, settledMs)
})

test('3,000 hires through the outbox open 3,000 accounts while relays are killed', { timeout: 90_000 }, async () => {
  await using postgres = await killablePostgres()
  await using fleet = await startFleet(postgres.url, ['api', 'relay', 'relay', 'worker'], ['relay'])
  await using database = await openBooks(postgres)
  // A starting process says where events go, by '*'. Our row is for the one type, which has the last word over that.
  await routeEvents(database.books, 'broker', 'employee.created')

  const killing = killEverySecond(fleet, { times: 8 })
  const hired = await hireUnderFire(fleet, { count: 3000, overMs: 8000, concurrency: 20 }, killing)

  const settledMs = await untilSettled(database.books, fleet, hired)
  expect(fleet.losses()).toEqual([])
  expect(await readRelayed(database.books)).toEqual(await readEvents(database.books))
  tell('through the outbox', hired, fleet, settledMs)
})

async function openBooks({ url }: KillablePostgres): Promise<AsyncDisposable & { books: Database }> {
  const books = await openDatabase({ url, max: 2 })
  return { books, [Symbol.asyncDispose]: () => books.close() }
}

interface Killing {
  times: number
  postgres?: KillablePostgres
  /** With which kill Postgres goes too. */
  at?: number
}

async function killEverySecond(fleet: Fleet, { times, postgres, at }: Killing): Promise<void> {
  const began = systemClock.monotonic()
  for (let kill = 1; kill <= times; kill++) {
    await sleep(systemClock, Math.max(0, began + kill * 1000 - systemClock.monotonic()))
    if (kill === at) {
      await postgres?.kill()
      await postgres?.revive()
    }
    await fleet.killNext()
  }
}

async function hireUnderFire(fleet: Fleet, options: HireOptions, killing: Promise<void>): Promise<Hired> {
  const [hired] = await Promise.all([hireMany(fleet.address, options), killing])
  expect(hired.ids.size).toBe(options.count)
  return hired
}

/** Returns how long it took after the last kill. */
async function untilSettled(database: Database, { lastKillMs }: Fleet, { ids, retries }: Hired): Promise<number> {
  let books = await readBooks(database)
  await waitFor(
    async () => {
      books = await readBooks(database)
      return books.accounts === books.employees && books.deliveries === 0 && books.outbox === 0
    },
    { timeoutMs: settleMs, everyMs: 50, what: () => `everybody has an account: ${JSON.stringify(books)}` },
  )
  const tookMs = systemClock.monotonic() - lastKillMs
  expect(await readBooks(database)).toMatchObject({ mismatches: 0, deliveries: 0, outbox: 0, dead: 0 })
  expect(await findLost(database, ids)).toEqual([])
  // No more than were asked for: each request that was repeated may have been carried out before.
  expect(books.employees).toBeLessThanOrEqual(ids.size + retries)
  return tookMs
}

/** Events that went through the outbox, by the relay's receipts, which come with the deletion from it. */
async function readRelayed(database: Database): Promise<number> {
  const [row] = await database.sql<{ count: number }>`
    select count(distinct substr(event_ids, 16 * place + 1, 16))::int as count
    from kerp.receipts, generate_series(0, length(event_ids) / 16 - 1) as place where hop = 0`
  return row!.count
}

async function readEvents(database: Database): Promise<number> {
  const [row] = await database.sql<{ count: number }>`select count(*)::int as count from kerp.events`
  return row!.count
}

function tell(way: string, { ids, retries, tookMs }: Hired, { kills }: Fleet, settledMs: number): void {
  const rate = Math.round(ids.size / (tookMs / 1000))
  const words = [`${ids.size} hires ${way}: ${rate}/s`, `${kills} kills`, `${retries} requests repeated`]
  console.log([...words, `settled ${Math.round(settledMs)} ms after the last kill`].join(', '))
}
