import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import { memoryTransport } from '../../transports/memory/index.ts'
import { postgresTransport } from '../../transports/postgres/index.ts'
import type { Database } from '../database/database.ts'
import { discardDeadLetters, redriveDeadLetters } from '../worker/dead-letters.ts'
import { fixed, permanent } from '../worker/retry.ts'
import type { EventSubscription } from '../worker/subscription.ts'
import { on } from '../worker/subscription.ts'
import { startWorker } from '../worker/worker.ts'
import { emit } from './emit.ts'
import { startHints } from './hints.ts'
import { lifeOfEvent, recentEvents } from './lineage.ts'
import { outboxDepth } from './depth.ts'
import { startRelay } from './relay.ts'
import { routeEvents } from './routes.ts'

const Ordered = defineEvent('meal.ordered', { data: z.object({ dish: z.string() }), key: ({ dish }) => dish })
const Cooked = defineEvent('meal.cooked', { data: z.object({ dish: z.string() }) })
const Served = defineEvent('meal.served', { data: z.object({ dish: z.string() }) })

let home: TestDatabase
let database: Database
let stack: AsyncDisposableStack
beforeEach(async () => {
  stack = new AsyncDisposableStack()
  home = await testDatabase()
  stack.defer(() => home.drop())
  database = await home.open()
  stack.defer(() => database.close())
})
afterEach(() => stack.disposeAsync())

async function work(...subscriptions: EventSubscription[]) {
  const hints = await startHints(database)
  stack.defer(() => hints.close())
  const transport = postgresTransport({ database, hints })
  await routeEvents(database, 'database')
  const worker = await startWorker({ database, transport, subscriptions })
  stack.defer(() => worker.drain(1000))
  return worker
}

const order = (dish = 'soup') =>
  database.transaction((tx) => emit(tx, Ordered, { dish }), { context: { companyId: 'one', correlationId: 'c' } })

async function untilState(eventId: string, state: string) {
  return waitFor(
    async () => {
      const life = await lifeOfEvent(database, eventId)
      return life?.consumers.some((consumer) => consumer.state === state) ? life : undefined
    },
    { what: `a consumer of it is ${state}` },
  )
}

test('an event that waits in the outbox, that the broker has, and that nobody knows', async () => {
  const id = await order()
  expect(await lifeOfEvent(database, id)).toMatchObject({
    eventId: id,
    eventType: 'meal.ordered',
    companyId: 'one',
    key: 'soup',
    version: 1,
    data: { dish: 'soup' },
    correlationId: 'c',
    causationId: null,
    relayed: null,
    consumers: [],
    caused: [],
  })
  const relay = startRelay({ database, transport: memoryTransport() })
  stack.defer(() => relay.stop())
  const life = await waitFor(async () =>
    (await lifeOfEvent(database, id))?.relayed ? lifeOfEvent(database, id) : undefined,
  )
  expect(Date.parse(life.relayed!.at) - Date.parse(life.emittedAt)).toBe(life.relayed!.afterMs)
  expect(await lifeOfEvent(database, newId())).toBeUndefined()
  expect(await lifeOfEvent(database, 'rubbish')).toBeUndefined()
})

test('one that is done tells when, after how long, and at which attempt', async () => {
  let fails = 1
  await work(
    on(Ordered, {
      name: 'kitchen',
      retry: fixed(20),
      handle: () => {
        if (fails-- > 0) throw new Error('burnt')
      },
    }),
  )
  const { consumers, emittedAt, relayed } = await untilState(await order(), 'done')
  const [kitchen] = consumers
  expect(relayed).toEqual({ at: emittedAt, afterMs: 0 })
  expect(kitchen).toMatchObject({ consumer: 'kitchen', state: 'done', attempts: 2, nextAttemptAt: null })
  expect(kitchen!.afterMs).toBe(Date.parse(kitchen!.doneAt!) - Date.parse(emittedAt))
  expect(kitchen!.afterMs).toBeGreaterThanOrEqual(20)
})

test('one that waits for its next attempt tells until when, and why', async () => {
  const failing = () => Promise.reject(new Error('burnt'))
  await work(on(Ordered, { name: 'kitchen', retry: fixed('1h'), handle: failing }))
  const { consumers } = await untilState(await order(), 'waiting')
  expect(consumers).toMatchObject([{ consumer: 'kitchen', attempts: 1, lastError: 'burnt', doneAt: null }])
  const inMs = Date.parse(consumers[0]!.nextAttemptAt!) - Date.now()
  expect(inMs).toBeGreaterThan(3_500_000)
  expect(inMs).toBeLessThanOrEqual(3_600_000)
})

test('one that is being called outside is running', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  await work(on(Ordered, { name: 'courier', perform: () => promise }))
  const id = await order()
  await untilState(id, 'running')
  resolve()
  await untilState(id, 'done')
})

test('one that died tells of what, and later that it was redriven, done or discarded', async () => {
  let burns = true
  const cook = () => {
    if (burns) throw permanent('burnt')
  }
  const worker = await work(on(Ordered, { name: 'kitchen', handle: cook }))
  const [soup, cake] = [await order('soup'), await order('cake')]
  await untilState(cake, 'dead')
  expect((await untilState(soup, 'dead')).consumers).toMatchObject([{ attempts: 1, lastError: 'burnt' }])
  burns = false
  worker.pause()
  const [letter] = await database.sql<{ id: string }>`select id from kerp.dead_letters where event_id = ${soup}`
  await redriveDeadLetters(database, { ids: [letter!.id], by: 'me' })
  await untilState(soup, 'ready')
  worker.resume()
  await untilState(soup, 'done')
  await discardDeadLetters(database, { by: 'me' })
  await untilState(cake, 'discarded')
})

test('a consumer that has never had it, as it came later, is unknown', async () => {
  await routeEvents(database, 'database')
  const id = await order()
  await work(on(Ordered, { name: 'latecomer', handle: () => {} }))
  expect((await lifeOfEvent(database, id))?.consumers).toMatchObject([{ consumer: 'latecomer', state: 'unknown' }])
})

test('what its handlers emitted is told, and not what those caused in turn', async () => {
  await work(
    on(Ordered, { name: 'kitchen', handle: ({ data }, tx) => emit(tx, Cooked, data) }),
    on(Cooked, { name: 'waiter', handle: ({ data }, tx) => emit(tx, Served, data) }),
  )
  const id = await order()
  const served = await waitFor(async () => (await recentEvents(database, { limit: 1, type: 'meal.served' }))[0])
  const { caused } = await untilState(id, 'done')
  expect(caused).toEqual([{ eventId: expect.any(String), eventType: 'meal.cooked' }])
  expect(await lifeOfEvent(database, caused[0]!.eventId)).toMatchObject({
    companyId: 'one',
    correlationId: 'c',
    causationId: id,
    caused: [{ eventId: served.eventId }],
  })
})

test('events are listed newest first page by page, and followed oldest first', async () => {
  const ids: string[] = []
  for (const dish of ['a', 'b', 'c', 'd']) ids.push(await order(dish))
  await database.transaction((tx) => emit(tx, Served, { dish: 'e' }))
  const list = async (options: Partial<Parameters<typeof recentEvents>[1]>) =>
    (await recentEvents(database, { limit: 2, type: 'meal.ordered', ...options })).map(({ eventId }) => eventId)
  expect(await list({})).toEqual([ids[3], ids[2]])
  expect(await list({ before: ids[2]! })).toEqual([ids[1], ids[0]])
  expect(await list({ after: ids[1]! })).toEqual([ids[2], ids[3]])
  expect((await recentEvents(database, { limit: 9 })).map(({ eventType }) => eventType)).toContain('meal.served')
})

test('how much waits where, and for how long', async () => {
  expect(await outboxDepth(database)).toEqual({
    outbox: { rows: 0, oldestAgeMs: null },
    consumers: [],
    deadLetters: 0,
    oldestTransactionMs: expect.toSatisfy((ms) => ms === null || typeof ms === 'number'),
  })
  await order()
  await work(
    on(Ordered, { name: 'kitchen', attempts: 1, handle: () => Promise.reject(new Error('burnt')) }),
    on(Ordered, { name: 'waiter', retry: fixed('1h'), handle: () => Promise.reject(new Error('late')) }),
  )
  await order()
  const depth = await waitFor(async () => {
    const now = await outboxDepth(database)
    return now.deadLetters === 1 && now.consumers.some(({ waiting }) => waiting === 1) ? now : undefined
  })
  expect(depth.outbox.rows).toBe(1)
  expect(depth.outbox.oldestAgeMs).toBeGreaterThan(0)
  expect(depth.consumers).toMatchObject([
    { consumer: 'kitchen', ready: 0, running: 0, waiting: 0, oldestAgeMs: null },
    { consumer: 'waiter', ready: 0, running: 0, waiting: 1, oldestAgeMs: expect.any(Number) },
  ])
  await database.transaction(async () => {
    const { oldestTransactionMs } = await waitFor(async () => {
      const now = await outboxDepth(database)
      return (now.oldestTransactionMs ?? 0) > 0 ? now : undefined
    })
    expect(oldestTransactionMs).toBeLessThan(30_000)
  })
})
