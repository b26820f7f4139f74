import { describe, expect, test } from 'vitest'
import type { Tx } from '../../src/engine/database/transaction.ts'
import { fixed, permanent } from '../../src/engine/worker/retry.ts'
import type { Event } from '../../src/engine/worker/subscription.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import { KerpError } from '../../src/kernel/errors.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Engine } from './engine.ts'
import { Asked, openEngine, takeEffect } from './engine.ts'
import { freePort } from './processes.ts'

type Act = (event: Event<Asked>, tx: Tx) => unknown

const consumer = 'chaos.actor'
const attempts = 3

/** One consumer whose events say how its handler is to behave; `do` is what a good one does. */
async function openActor(acts: Record<string, Act>): Promise<Engine> {
  const act: Act = (event, tx) =>
    (acts[event.data.act] ?? ((_, own) => takeEffect(own, consumer, event.data)))(event, tx)
  return openEngine([
    on(Asked, { name: consumer, attempts, retry: fixed(20), deadline: '500ms', handle: (event, tx) => act(event, tx) }),
  ])
}

/** Ten events in one batch, the fifth of which behaves badly. */
function askAround(engine: Engine, act: string): Promise<string[]> {
  return engine.ask(...Array.from({ length: 10 }, (_, number) => ({ number, act: number === 4 ? act : 'do' })))
}

async function expectNeighboursDone(engine: Engine): Promise<void> {
  const numbers = (await engine.effects()).map(({ number }) => number).sort((a, b) => a - b)
  expect(numbers).toEqual([0, 1, 2, 3, 5, 6, 7, 8, 9])
}

/** A connection that is not given back, or is given back with its transaction open, is lost for all others. */
async function expectIdlePool({ database }: Engine): Promise<void> {
  await waitFor(() => database.pool.total === database.pool.idle && database.pool.waiting === 0, {
    what: 'an idle pool',
  })
  const [row] = await database.sql<{ open: number }>`
    select count(*)::int as open from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and state like 'idle in transaction%'`
  expect(row?.open).toBe(0)
}

/** The bad one ends in the dead letters after all its attempts, and everybody else is done once. */
async function expectOnlyItDies(
  engine: Engine,
  act: string,
): Promise<Awaited<ReturnType<Engine['deadLetters']>>[number]> {
  const ids = await askAround(engine, act)
  await engine.settled()
  await expectNeighboursDone(engine)
  await expectIdlePool(engine)
  const letters = await engine.deadLetters()
  expect(letters).toMatchObject([{ eventId: ids[4], consumer, eventType: 'chaos.asked' }])
  return letters[0]!
}

describe('a handler that fails', () => {
  test('is tried again, then its event is a dead letter with the whole chain of errors', async () => {
    let calls = 0
    await using engine = await openActor({
      throw() {
        calls++
        throw new Error('the account is closed', { cause: new KerpError('CONFLICT', 'closed in 2025') })
      },
    })
    const letter = await expectOnlyItDies(engine, 'throw')
    expect(letter).toMatchObject({ reason: 'attempts', attempts })
    expect(letter.error).toMatchObject([
      { message: 'the account is closed' },
      { message: 'closed in 2025', code: 'CONFLICT' },
    ])
    // Once more than its attempts: the batch it was in, then alone.
    expect(calls).toBeGreaterThanOrEqual(attempts)
    expect(calls).toBeLessThanOrEqual(attempts + 1)
  })

  test('permanently, is not tried again', async () => {
    await using engine = await openActor({
      permanent() {
        throw permanent('there is no such bank')
      },
    })
    expect(await expectOnlyItDies(engine, 'permanent')).toMatchObject({ reason: 'permanent', attempts: 1 })
  })

  test('only sometimes, has its effect once', async () => {
    await using engine = await openActor({
      async flaky(event, tx) {
        await takeEffect(tx, consumer, event.data)
        if (event.attempt < attempts) throw new Error('not yet')
      },
    })
    await askAround(engine, 'flaky')
    await engine.settled()
    expect((await engine.effects()).filter(({ number }) => number === 4)).toHaveLength(1)
    expect(await engine.deadLetters()).toEqual([])
  })

  test.each<[string, () => never]>([
    ['with a text that Postgres cannot store', () => fail(new Error('zero \u0000 inside'))],
    ['with half an emoji', () => fail(new Error('😀'.slice(0, 1)))],
    ['with an error that is its own cause', () => fail(circularError())],
    ['with nothing', () => fail(undefined)],
    ['with an object that has no words', () => fail(Object.create(null))],
    ['with an error of a megabyte', () => fail(new Error('x'.repeat(1_000_000)))],
  ])('%s, costs nobody else anything', async (_, bad) => {
    await using engine = await openActor({ bad })
    expect(await expectOnlyItDies(engine, 'bad')).toMatchObject({ reason: 'attempts', attempts })
  })

  test('because another server is down, is not taken for a database that is away', async () => {
    const port = await freePort()
    await using engine = await openActor({ fetch: () => fetch(`http://127.0.0.1:${port}/`) })
    const letter = await expectOnlyItDies(engine, 'fetch')
    expect(JSON.stringify(letter.error)).toContain('ECONNREFUSED')
  })
})

describe('a handler that hangs', () => {
  test('in the outside world, is given up at the deadline', async () => {
    await using engine = await openActor({ hang: () => new Promise(() => {}) })
    const letter = await expectOnlyItDies(engine, 'hang')
    expect(letter).toMatchObject({ reason: 'attempts', error: [{ code: 'DEADLINE_EXCEEDED' }] })
  })

  test('in a statement, frees what that has locked', async () => {
    await using engine = await openActor({ hang: (_, tx) => tx.sql`select pg_sleep(60)` })
    await expectOnlyItDies(engine, 'hang')
    const [row] = await engine.database.sql<{ sleepers: number }>`
      select count(*)::int as sleepers from pg_stat_activity where datname = current_database() and query like '%pg_sleep%'
        and pid <> pg_backend_pid() and state = 'active'`
    expect(row?.sleepers).toBe(0)
  })
})

describe('a handler that forgets an await', () => {
  test('on a statement that succeeds, commits with all of it', async () => {
    await using engine = await openActor({ forget: (event, tx) => void takeEffect(tx, consumer, event.data) })
    await askAround(engine, 'forget')
    await engine.settled()
    expect(await engine.effects()).toHaveLength(10)
  })

  test('on a statement that fails, is not acknowledged', async () => {
    await using engine = await openActor({
      async forget(event, tx) {
        void tx.sql`select 1 / 0`
        await takeEffect(tx, consumer, event.data)
      },
    })
    const letter = await expectOnlyItDies(engine, 'forget')
    expect(letter.error[0]?.message).toMatch(/nothing was committed|division by zero|aborted/)
  })

  test('and asks after the transaction is over, is told so and changes nothing', async () => {
    const told = Promise.withResolvers<unknown>()
    await using engine = await openActor({
      late(event, tx) {
        void waitFor(async () => (await engine.effects()).length === 9).then(() =>
          takeEffect(tx, consumer, event.data).catch(told.resolve),
        )
      },
    })
    await askAround(engine, 'late')
    await engine.settled()
    expect(await told.promise).toMatchObject({ code: 'TRANSACTION_CLOSED', hint: expect.stringContaining('await') })
    await expectNeighboursDone(engine)
    await expectIdlePool(engine)
  })
})

test('a handler that fails while a branch of it goes on leaves nothing of that behind', async () => {
  await using engine = await openActor({
    async branch(event, tx) {
      const slow = async () => {
        await tx.sql`select pg_sleep(0.05)`
        await takeEffect(tx, consumer, event.data)
      }
      await Promise.all([slow(), Promise.reject(new Error('the quick one fails'))])
    },
  })
  await expectOnlyItDies(engine, 'branch')
})

test('a handler that swallows a failed statement is not acknowledged', async () => {
  await using engine = await openActor({
    async swallow(event, tx) {
      await tx.sql`select 1 / 0`.catch(() => {})
      await takeEffect(tx, consumer, event.data).catch(() => {})
    },
  })
  const letter = await expectOnlyItDies(engine, 'swallow')
  expect(letter).toMatchObject({ error: [{ code: 'TRANSACTION_CLOSED' }] })
})

test('a handler that puts what may fail into a part of its own is done', async () => {
  await using engine = await openActor({
    async part(event, tx) {
      await tx.transaction((inner) => inner.sql`select 1 / 0`).catch(() => {})
      await takeEffect(tx, consumer, event.data)
    },
  })
  await askAround(engine, 'part')
  await engine.settled()
  expect(await engine.effects()).toHaveLength(10)
})

test('a handler that ends the transaction itself does not have its effect twice', async () => {
  await using engine = await openActor({
    async end(event, tx) {
      await takeEffect(tx, consumer, event.data)
      await tx.query('commit')
      throw new Error('and now?')
    },
  })
  await engine.ask({ number: 4, act: 'end' })
  await engine.settled()
  expect((await engine.effects()).length).toBeLessThanOrEqual(1)
})

function fail(thrown: unknown): never {
  throw thrown
}

function circularError(): Error {
  const error = new Error('round and round')
  error.cause = error
  return error
}
