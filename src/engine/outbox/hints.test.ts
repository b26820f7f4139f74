import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import type { Database } from '../database/database.ts'
import { emit } from './emit.ts'
import { startHints } from './hints.ts'

const Rang = defineEvent('bell.rang', { data: z.object({}) })
const Knocked = defineEvent('door.knocked', { data: z.object({}) })

let home: TestDatabase
beforeAll(async () => {
  home = await testDatabase()
  await (await home.open()).close()
})
afterAll(() => home.drop())

/** A process of its own, as far as hints can tell. */
async function open(stack: AsyncDisposableStack, applicationName = 'kerp') {
  const database = await home.open({ applicationName })
  stack.defer(() => database.close())
  const errors: Error[] = []
  const hints = await startHints(database, (error) => errors.push(error))
  stack.defer(() => hints.close())
  const count = (types: readonly string[] | '*') => {
    const heard = { times: 0, stop: () => {} }
    heard.stop = hints.listen(types, () => heard.times++)
    return heard
  }
  return { database, hints, count, errors }
}

const ring = (database: Database, type = Rang) => database.transaction((tx) => emit(tx, type, {}))

describe('who waits for an event is woken by its commit', () => {
  test('at once in the same process', async () => {
    await using stack = new AsyncDisposableStack()
    const here = await open(stack)
    const [bells, doors, all] = [here.count(['bell.rang']), here.count(['door.knocked']), here.count('*')]
    await ring(here.database)
    expect([bells.times, doors.times, all.times]).toEqual([1, 0, 1])
  })

  test('in another process', async () => {
    await using stack = new AsyncDisposableStack()
    const [here, there] = [await open(stack), await open(stack)]
    const [bells, doors, all] = [there.count(['bell.rang']), there.count(['door.knocked']), there.count('*')]
    await ring(here.database)
    await waitFor(() => bells.times > 0 && all.times > 0, { what: 'the other process hears of it' })
    expect(doors.times).toBe(0)
  })

  test('however many types there are at once', async () => {
    await using stack = new AsyncDisposableStack()
    const [here, there] = [await open(stack), await open(stack)]
    const bells = there.count(['bell.rang'])
    await here.database.transaction(async (tx) => {
      for (let i = 0; i < 1000; i++) tx.emitted(`some-other.event-${i}`)
      tx.emitted('bell.rang')
    })
    await waitFor(() => bells.times > 0)
    expect(here.errors).toEqual([])
  })

  test('and not by a rollback, nor once it has stopped listening', async () => {
    await using stack = new AsyncDisposableStack()
    const here = await open(stack)
    const [bells, doors] = [here.count(['bell.rang']), here.count(['door.knocked'])]
    await here.database
      .transaction(async (tx) => {
        await emit(tx, Rang, {})
        throw new Error('on purpose')
      })
      .catch(() => {})
    doors.stop()
    await ring(here.database, Knocked)
    expect([bells.times, doors.times]).toEqual([0, 0])
  })

  test('its own echo wakes nobody twice', async () => {
    await using stack = new AsyncDisposableStack()
    const [here, there] = [await open(stack), await open(stack)]
    const bells = here.count(['bell.rang'])
    await ring(here.database)
    // The answer of the other process arrives behind the echo.
    const echo = there.count(['bell.rang'])
    const answer = here.count(['door.knocked'])
    await waitFor(() => echo.times > 0)
    await ring(there.database, Knocked)
    await waitFor(() => answer.times > 0)
    expect(bells.times).toBe(1)
  })
})

test('a lost connection is made again; whoever waits is told to look, and hears of what comes then', async () => {
  await using stack = new AsyncDisposableStack()
  const here = await open(stack)
  const there = await open(stack, 'kerp-hints-lost')
  const bells = there.count(['bell.rang'])
  const [killed] = await here.database.sql`
    select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kerp-hints-lost' and query = 'listen kerp_emitted'`
  expect(killed).toBeDefined()
  await waitFor(() => bells.times > 0, { what: 'everyone is told to look' })
  const before = bells.times
  await ring(here.database)
  await waitFor(() => bells.times > before, { what: 'the new connection hears' })
})

test('after close nothing is heard and no connection is left', async () => {
  await using stack = new AsyncDisposableStack()
  const here = await open(stack)
  const there = await open(stack, 'kerp-hints-closed')
  const bells = there.count('*')
  await there.hints.close()
  await ring(there.database)
  expect(bells.times).toBe(0)
  await waitFor(
    async () =>
      (
        await here.database
          .sql`select 1 from pg_stat_activity where application_name = 'kerp-hints-closed' and query like 'listen%'`
      ).length === 0,
    { what: 'the connection is gone' },
  )
})
