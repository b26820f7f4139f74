import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import { createIds } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { VirtualClock } from '../../testing/virtual-clock.ts'
import { waitFor } from '../../testing/wait.ts'
import type { Database } from '../database/database.ts'
import { silentObserver } from '../telemetry/observer.ts'
import { emit } from './emit.ts'
import { startHousekeeping } from './housekeeping.ts'
import { lifeOfEvent } from './lineage.ts'

const Happened = defineEvent('it.happened', { data: z.object({}) })
const dayMs = 86_400_000

let home: TestDatabase
let database: Database
beforeEach(async () => {
  home = await testDatabase()
  database = await home.open()
})
afterEach(async () => {
  await database.close()
  await home.drop()
})

const nameOf = (parent: string, daysFromNow: number) =>
  `${parent}_${new Date(Date.now() + daysFromNow * dayMs).toISOString().slice(0, 10).replaceAll('-', '')}`

const partitions = async (parent: string) =>
  (
    await database.sql<{ name: string }>`
    select c.relname as name from pg_class c join pg_inherits i on i.inhrelid = c.oid
    where i.inhparent = ${`kerp.${parent}`}::regclass order by 1`
  ).map(({ name }) => name)

const partitionOf = async (eventId: string) =>
  (
    await database.sql<{
      name: string
    }>`select relname as name from kerp.events e join pg_class c on c.oid = e.tableoid where event_id = ${eventId}`
  )[0]?.name

const emitAt = (at: number) => {
  const makeId = createIds(new VirtualClock({ startAt: at }), (bytes) => void crypto.getRandomValues(bytes))
  return database.transaction((tx) => emit(tx, Happened, {}, { newId: makeId }))
}

/** A partition as it was made some days ago. */
async function pretendPartition(daysAgo: number): Promise<void> {
  for (const parent of ['events', 'processed_events']) {
    await database.query(`
      create table kerp.${nameOf(parent, -daysAgo)} partition of kerp.${parent}
      for values from (kerp.first_id_of((now() at time zone 'utc')::date - ${daysAgo})) to (kerp.first_id_of((now() at time zone 'utc')::date - ${daysAgo - 1}))`)
  }
}

async function keepHouse(keepDays: number): Promise<void> {
  const failures: Error[] = []
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void failures.push(error) }
  const keeping = startHousekeeping({ database, keepDays, observer })
  // Stops after the round that is under way.
  await keeping.stop()
  expect(failures).toEqual([])
}

test('partitions are there for the coming week', async () => {
  await keepHouse(7)
  for (const parent of ['events', 'processed_events']) {
    const there = await partitions(parent)
    for (let day = 0; day <= 7; day++) expect(there).toContain(nameOf(parent, day))
  }
})

test('an event of today is in the partition of today', async () => {
  expect(await partitionOf(await emitAt(Date.now()))).toBe(nameOf('events', 0))
})

test('making partitions twice, and side by side, is harmless', async () => {
  const before = await partitions('events')
  await database.sql`select kerp.make_partitions(7)`
  await Promise.all([1, 2, 3].map(() => database.sql`select kerp.make_partitions(9)`))
  expect(await partitions('events')).toEqual([
    ...before.slice(0, -1),
    nameOf('events', 8),
    nameOf('events', 9),
    'events_other',
  ])
})

describe('what is older than is kept', () => {
  test('is dropped with its day, and nothing younger is', async () => {
    for (const daysAgo of [3, 4, 9]) await pretendPartition(daysAgo)
    const [kept, dropped] = [await emitAt(Date.now() - 3 * dayMs), await emitAt(Date.now() - 4 * dayMs)]
    await keepHouse(3)
    expect(await partitionOf(kept)).toBe(nameOf('events', -3))
    expect(await partitionOf(dropped)).toBeUndefined()
    expect(await partitions('processed_events')).not.toContain(nameOf('processed_events', -4))
  })

  test('is dropped by several processes at once', async () => {
    await pretendPartition(9)
    await Promise.all([keepHouse(3), keepHouse(3), keepHouse(3)])
    expect(await partitions('events')).not.toContain(nameOf('events', -9))
  })

  test('receipts included', async () => {
    await database.sql`
      insert into kerp.receipts (hop, started_at, done_at, span, event_ids)
      select 0, at, at, '[1,1]', '{}' from (values (now()), (now() - interval '9 days')) as v (at)`
    await keepHouse(3)
    expect(await database.sql`select 1 from kerp.receipts`).toHaveLength(1)
  })
})

describe('an id from a time without a partition', () => {
  test('works as every other', async () => {
    const id = await emitAt(Date.UTC(2020, 0, 1))
    expect(await partitionOf(id)).toBe('events_other')
    expect(await lifeOfEvent(database, id)).toMatchObject({ eventId: id, eventType: 'it.happened', relayed: null })
  })

  test('is kept as long as others, by the time of its emit', async () => {
    const [old, fresh] = [await emitAt(Date.UTC(2020, 0, 1)), await emitAt(Date.UTC(2020, 0, 1))]
    await database.sql`update kerp.events set emitted_at = now() - interval '9 days' where event_id = ${old}`
    await keepHouse(3)
    expect(await partitionOf(old)).toBeUndefined()
    expect(await partitionOf(fresh)).toBe('events_other')
  })

  test('does not keep the partition of its day from being left out without harm to the others', async () => {
    const ahead = await emitAt(Date.now() + 9 * dayMs)
    await database.sql`select kerp.make_partitions(10)`
    expect(await partitions('events')).not.toContain(nameOf('events', 9))
    expect(await partitions('events')).toContain(nameOf('events', 10))
    expect(await partitionOf(ahead)).toBe('events_other')
  })
})

test('goes on hour by hour, and is not stopped by a failure', async () => {
  const clock = new VirtualClock()
  const failures: Error[] = []
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void failures.push(error) }
  await database.query('alter function kerp.make_partitions(int) rename to away')
  const keeping = startHousekeeping({ database, keepDays: 7, observer, clock })
  await waitFor(() => failures.length === 1 && clock.pending === 1)
  await database.query('alter function kerp.away(int) rename to make_partitions')
  await database.query(`drop table kerp.${nameOf('events', 7)}`)
  await clock.advance(3_600_000)
  await waitFor(async () => (await partitions('events')).includes(nameOf('events', 7)))
  await keeping.stop()
})
