import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import { memoryTransport } from '../../transports/memory/index.ts'
import { postgresTransport } from '../../transports/postgres/index.ts'
import type { Database } from '../database/database.ts'
import type { Tx } from '../database/transaction.ts'
import { emit, emitAll } from '../outbox/emit.ts'
import { startHints } from '../outbox/hints.ts'
import { lifeOfEvent, recentEvents } from '../outbox/lineage.ts'
import { startRelay } from '../outbox/relay.ts'
import { routeEvents } from '../outbox/routes.ts'
import { silentObserver } from '../telemetry/observer.ts'
import type { Transport } from '../transport.ts'
import { listDeadLetters, redriveDeadLetters } from './dead-letters.ts'
import { fixed, permanent } from './retry.ts'
import type { Event, EventSubscription, HandleOptions } from './subscription.ts'
import { on } from './subscription.ts'
import type { Worker } from './worker.ts'
import { startWorker } from './worker.ts'

const Moved = defineEvent('box.moved', { data: z.object({ box: z.string(), step: z.number() }), key: ({ box }) => box })
const Seen = defineEvent('box.seen', { data: z.object({ box: z.string() }) })
type Moved = Event<{ box: string; step: number }>

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  // No constraint: what is done twice must be seen, not refused.
  await database.query('create table moves (place bigint generated always as identity, box text, step int)')
})
beforeEach(async () => {
  await database.query('truncate moves, kerp.deliveries, kerp.outbox_events, kerp.dead_letters, kerp.subscriptions')
})
afterAll(async () => {
  await database.close()
  await home.drop()
})

const move = ({ data }: Moved, tx: Tx) => tx.sql`insert into moves (box, step) values (${data.box}, ${data.step})`
const moves = async () =>
  (await database.sql<{ move: string }>`select box || ' ' || step as move from moves order by place`).map(
    (row) => row.move,
  )
const dead = async () => (await listDeadLetters(database, { limit: 100 })).items
const send = (...all: [box: string, step: number][]) =>
  database.transaction((tx) =>
    emitAll(
      tx,
      all.map(([box, step]) => [Moved, { box, step }] as const),
    ),
  )
const untilMoved = (count: number, timeoutMs = 10_000) =>
  waitFor(async () => ((await moves()).length >= count ? moves() : undefined), { what: `${count} moves`, timeoutMs })

type Options = Partial<HandleOptions<{ box: string; step: number }>>
const mover = (options: Options = {}) =>
  on(Moved, { name: 'mover', attempts: 3, retry: fixed(20), handle: move, ...options })

/** What was redriven is found by the poll. */
const noHints = { listen: () => () => {}, close: async () => {} }

/** The same tests on a queue within the database, and on a broker behind the outbox. */
const setups = {
  'the database as the broker': async (stack: AsyncDisposableStack): Promise<Transport> => {
    const hints = await startHints(database)
    stack.defer(() => hints.close())
    await routeEvents(database, 'database')
    return postgresTransport({ database, hints })
  },
  'a broker that delivers everything twice': async (stack: AsyncDisposableStack): Promise<Transport> => {
    const transport = memoryTransport({ faults: { onPublish: () => ({ duplicate: true }) } })
    stack.defer(() => transport.close())
    await routeEvents(database, 'broker')
    const hints = await startHints(database)
    stack.defer(() => hints.close())
    const relay = startRelay({ database, transport, hints })
    stack.defer(() => relay.stop())
    return transport
  },
}

async function start(
  stack: AsyncDisposableStack,
  transport: Transport,
  ...subscriptions: EventSubscription[]
): Promise<Worker> {
  const redriven = postgresTransport({ database, hints: noHints })
  const worker = await startWorker({ database, transport, subscriptions, redriven })
  stack.defer(() => worker.drain(500))
  return worker
}

describe.each(Object.entries(setups))('a worker on %s', (_, open) => {
  test('does each event once, those of a key in order, also beside others', async () => {
    await using stack = new AsyncDisposableStack()
    const transport = await open(stack)
    await start(stack, transport, mover())
    await start(stack, transport, mover())
    const all = Array.from({ length: 300 }, (_each, index): [string, number] => [`box-${index % 9}`, index])
    for (let from = 0; from < all.length; from += 30) await send(...all.slice(from, from + 30))
    const done = await untilMoved(300)
    expect(done).toHaveLength(300)
    for (const ofBox of Object.values(Object.groupBy(done, (line) => line.split(' ')[0]!))) {
      const steps = ofBox!.map((line) => Number(line.split(' ')[1]))
      expect(steps).toEqual(steps.toSorted((a, b) => a - b))
    }
  })

  test('lets no poison keep the others, and does not let later ones of its key go first', async () => {
    await using stack = new AsyncDisposableStack()
    let fails = 2
    await start(
      stack,
      await open(stack),
      mover({
        async handle(event, tx) {
          await move(event, tx)
          if (event.data.box === 'poison') throw permanent('never')
          if (event.data.step === 1 && fails-- > 0) throw new Error('not yet')
        },
      }),
    )
    await send(['a', 1], ['poison', 1], ['a', 2], ['b', 2])
    expect((await untilMoved(3)).filter((line) => line.startsWith('a'))).toEqual(['a 1', 'a 2'])
    expect(await waitFor(async () => ((await dead()).length ? dead() : undefined))).toMatchObject([
      { consumer: 'mover', reason: 'permanent', attempts: 1, message: 'never' },
    ])
    expect((await moves()).sort()).toEqual(['a 1', 'a 2', 'b 2'])
  })

  test('gives every consumer each event, and what their handlers emit is part of their effect', async () => {
    await using stack = new AsyncDisposableStack()
    let fails = 1
    const spotter = on(Moved, {
      name: 'spotter',
      retry: fixed(10),
      async handle({ data: { box } }, tx) {
        await emit(tx, Seen, { box })
        if (fails-- > 0) throw new Error('not yet')
      },
    })
    const witness: string[] = []
    const watcher = on(Seen, { name: 'watcher', handle: ({ data }) => void witness.push(data.box) })
    await start(stack, await open(stack), mover(), spotter, watcher)
    const [id] = await database.transaction((tx) => emitAll(tx, [[Moved, { box: 'x', step: 1 }]]), {
      context: { companyId: 'one', correlationId: 'c', traceparent: 't' },
    })
    await untilMoved(1)
    await waitFor(() => witness.length > 0)
    const [seen] = await recentEvents(database, { limit: 1, type: 'box.seen' })
    expect(await lifeOfEvent(database, seen!.eventId)).toMatchObject({
      companyId: 'one',
      correlationId: 'c',
      causationId: id,
      traceparent: 't',
    })
    expect(witness).toEqual(['x'])
  })

  test('takes up again what was dead, once', async () => {
    await using stack = new AsyncDisposableStack()
    let broken = true
    await start(
      stack,
      await open(stack),
      mover({ handle: (event, tx) => (broken ? Promise.reject(permanent('broken')) : move(event, tx)) }),
    )
    await send(['a', 1], ['b', 1])
    await waitFor(async () => (await dead()).length === 2)
    broken = false
    await Promise.all([1, 2].map(() => redriveDeadLetters(database, { by: 'me' })))
    expect((await untilMoved(2, 3000)).sort()).toEqual(['a 1', 'b 1'])
    expect(await dead()).toEqual([])
  })

  test('makes nothing of an event whose handler uses a finished part of its transaction', async () => {
    await using stack = new AsyncDisposableStack()
    await start(
      stack,
      await open(stack),
      mover({
        async handle(event, tx) {
          const part = await tx.transaction(async (inner) => inner)
          await move(event, part)
        },
      }),
    )
    await send(['a', 1])
    const letters = await waitFor(async () => ((await dead()).length ? dead() : undefined), {
      what: 'its dead letter',
      timeoutMs: 2000,
    })
    expect(letters).toMatchObject([{ attempts: 3, reason: 'attempts' }])
  })

  test('does nothing while it is paused', async () => {
    await using stack = new AsyncDisposableStack()
    const worker = await start(stack, await open(stack), mover())
    await send(['a', 1])
    await untilMoved(1)
    worker.pause()
    await waitFor(() => worker.inFlight === 0)
    await send(['a', 2])
    expect(await moves()).toEqual(['a 1'])
    worker.resume()
    expect(await untilMoved(2)).toEqual(['a 1', 'a 2'])
  })

  test('finishes what it has begun when it is drained, and leaves the rest to others', async () => {
    await using stack = new AsyncDisposableStack()
    const transport = await open(stack)
    const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const slow = mover({
      batch: 1,
      parallel: 1,
      inFlight: 1,
      async handle(event, tx) {
        begun.resolve()
        await go.promise
        await move(event, tx)
      },
    })
    const worker = await start(stack, transport, slow)
    await send(['a', 1], ['a', 2], ['a', 3])
    await begun.promise
    const drained = worker.drain(10_000)
    go.resolve()
    await drained
    expect(await moves()).toEqual(['a 1'])
    expect(worker.inFlight).toBe(0)
    await start(stack, transport, mover())
    expect(await untilMoved(3)).toEqual(['a 1', 'a 2', 'a 3'])
  })

  test('is drained in time although a handler hangs', async () => {
    await using stack = new AsyncDisposableStack()
    const begun = Promise.withResolvers<void>()
    const hanging = mover({ deadline: '1500ms', handle: () => (begun.resolve(), new Promise(() => {})) })
    const worker = await start(stack, await open(stack), hanging)
    await send(['a', 1])
    await begun.promise
    const before = performance.now()
    await worker.drain(100)
    expect(performance.now() - before).toBeLessThan(1000)
    // Closing the database waits for the transaction that was left alone.
    await waitFor(() => database.pool.total === database.pool.idle, { what: 'its connection is free' })
  })
})

test('in turn, with one transaction at a time, no handler begins before another has ended, whatever their keys', async () => {
  await using stack = new AsyncDisposableStack()
  const transport = await setups['the database as the broker'](stack)
  let [running, most] = [0, 0]
  const inTurn = mover({
    order: 'in-turn',
    parallel: 1,
    batch: 5,
    async handle(event, tx) {
      most = Math.max(most, ++running)
      await move(event, tx)
      running--
    },
  })
  await transport.ensure({ subscriptions: [{ name: 'mover', events: [Moved.name] }] })
  const all = Array.from({ length: 20 }, (_, index): [string, number] => [`box-${index}`, index])
  await send(...all)
  await start(stack, transport, inTurn)
  expect((await untilMoved(20)).toSorted()).toEqual(all.map(([box, step]) => `${box} ${step}`).toSorted())
  expect(most).toBe(1)
})

describe('subscriptions that contradict each other are refused', () => {
  test('two of one name', async () => {
    const started = startWorker({ database, transport: memoryTransport(), subscriptions: [mover(), mover()] })
    await expect(started).rejects.toMatchObject({
      code: 'SUBSCRIPTION_INVALID',
      message: expect.stringContaining('mover'),
    })
  })

  test.each(['', 'Mover', 'a b', '.a', 'ä', 'a/b'])('one named %j', (name) => {
    expect(() => on(Moved, { name, handle: move })).toThrow(expect.objectContaining({ code: 'SUBSCRIPTION_INVALID' }))
  })
})

test('a subscription that is set up and no longer declared is told', async () => {
  await using stack = new AsyncDisposableStack()
  const transport = await setups['the database as the broker'](stack)
  await transport.ensure({ subscriptions: [{ name: 'mover', events: ['box.moved', 'box.burnt'] }] })
  const told: Error[] = []
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void told.push(error) }
  const worker = await startWorker({ database, transport, subscriptions: [mover()], observer })
  await worker.drain()
  expect(told).toMatchObject([{ code: 'TOPOLOGY_DRIFT', message: expect.stringContaining('box.burnt') }])
})

test('what was done, tried again and given up is counted', async () => {
  await using stack = new AsyncDisposableStack()
  const outcomes: Record<string, number> = {}
  const observer = {
    ...silentObserver,
    handled: (_: string, outcome: string, count: number) => void (outcomes[outcome] = (outcomes[outcome] ?? 0) + count),
  }
  const transport = await setups['the database as the broker'](stack)
  const handle = (event: Moved, tx: Tx) =>
    event.data.box === 'bad' ? Promise.reject(new Error('no')) : move(event, tx)
  const worker = await startWorker({ database, transport, subscriptions: [mover({ handle })], observer })
  stack.defer(() => worker.drain(500))
  await send(['a', 1], ['bad', 1], ['b', 1])
  await waitFor(() => outcomes['dead'] === 1 && outcomes['done'] === 2)
  expect(outcomes).toEqual({ done: 2, retried: 2, dead: 1 })
})
