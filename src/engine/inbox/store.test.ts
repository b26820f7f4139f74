import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import type { Database } from '../database/database.ts'
import { consumerIds, postgresInbox } from './store.ts'

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
})
afterAll(async () => {
  await database.close()
  await home.drop()
})

const ids = (count: number) => Array.from({ length: count }, newId)

describe('the inbox', () => {
  const inbox = postgresInbox(1)
  // Without retries: a deadlock has to be seen.
  const remember = (eventIds: string[], by = inbox) =>
    database.transaction((tx) => by.remember(tx, eventIds), { retries: 0 })

  const isWaiting = async () =>
    (await database.sql`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
      .length > 0

  test('tells what is new, once', async () => {
    const [a, b, c] = ids(3) as [string, string, string]
    expect(await remember([a, b])).toEqual(new Set([a, b]))
    expect(await remember([b, c, c])).toEqual(new Set([c]))
    expect(await remember([])).toEqual(new Set())
  })

  test('keeps consumers apart', async () => {
    const all = ids(3)
    await remember(all)
    expect(await remember(all, postgresInbox(2))).toEqual(new Set(all))
  })

  test('forgets what was rolled back', async () => {
    const all = ids(3)
    const failed = database.transaction(async (tx) => {
      await inbox.remember(tx, all)
      throw new Error('on purpose')
    })
    await expect(failed).rejects.toThrow('on purpose')
    expect(await remember(all)).toEqual(new Set(all))
  })

  test('lets a second worker with the same events wait for the first, and then finds them done', async () => {
    const all = ids(5)
    let second: Promise<Set<string>> | undefined
    await database.transaction(async (tx) => {
      await inbox.remember(tx, all)
      second = remember(all.toReversed())
      await waitFor(isWaiting, { what: 'the second one waits' })
    })
    expect(await second).toEqual(new Set())
  })

  test('does not deadlock with a worker that has the same events in another order', async () => {
    const [a, b] = ids(2) as [string, string]
    let second: Promise<Set<string>> | undefined
    await database.transaction(async (tx) => {
      await inbox.remember(tx, [a])
      second = remember([b, a])
      await waitFor(isWaiting, { what: 'the second one waits' })
      // It waits with empty hands, or this would never get on.
      expect(await inbox.remember(tx, [b])).toEqual(new Set([b]))
    })
    expect(await second).toEqual(new Set())
  })
})

describe('the number of a consumer', () => {
  test('is the same for ever', async () => {
    const first = await consumerIds(database, ['a', 'b'])
    expect(await consumerIds(database, ['b', 'c', 'a'])).toEqual(new Map([...first, ['c', expect.any(Number)]]))
    expect(new Set((await consumerIds(database, ['a', 'b', 'c'])).values()).size).toBe(3)
  })

  test('is one when several processes start at once', async () => {
    const all = await Promise.all([1, 2, 3, 4].map(() => consumerIds(database, ['z', 'y', 'x'])))
    for (const each of all) expect(each).toEqual(all[0])
  })
})
