import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import type { MemoryFaults } from '../../transports/memory/index.ts'
import { memoryTransport } from '../../transports/memory/index.ts'
import { postgresTransport } from '../../transports/postgres/index.ts'
import type { Database } from '../database/database.ts'
import type { Tx } from '../database/transaction.ts'
import { emitAll } from '../outbox/emit.ts'
import { startHints } from '../outbox/hints.ts'
import { startRelay } from '../outbox/relay.ts'
import { routeEvents } from '../outbox/routes.ts'
import { silentObserver } from '../telemetry/observer.ts'
import { listDeadLetters } from './dead-letters.ts'
import { fixed, notNow, permanent } from './retry.ts'
import type { Event, PerformOptions } from './subscription.ts'
import { on } from './subscription.ts'
import { startWorker } from './worker.ts'

const Asked = defineEvent('invoice.asked', {
  data: z.object({ key: z.string(), invoice: z.string() }),
  key: ({ key }) => key,
})
type Asked = Event<{ key: string; invoice: string }>
type Options = Partial<PerformOptions<{ key: string; invoice: string }, any>>

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  // No constraint: what is done twice must be seen, not refused.
  await database.query('create table invoices (place bigint generated always as identity, invoice text, answer text)')
})
beforeEach(() =>
  database.query('truncate invoices, kerp.deliveries, kerp.outbox_events, kerp.dead_letters, kerp.perform_results'),
)
afterAll(async () => {
  await database.close()
  await home.drop()
})

const book = (answer: unknown, tx: Tx, { data }: Asked) =>
  tx.sql`insert into invoices (invoice, answer) values (${data.invoice}, ${String(answer)})`
const booked = () =>
  database.sql<{ invoice: string; answer: string }>`select invoice, answer from invoices order by place`
const dead = async () => (await listDeadLetters(database, { limit: 100 })).items

/** A consumer that calls the outside, and the calls it made. */
function issuer(options: Options = {}) {
  const calls: { invoice: string; idempotencyKey: string }[] = []
  const subscription = on(Asked, {
    name: 'issuer',
    attempts: 3,
    retry: fixed(20),
    commit: book,
    ...options,
    async perform(event, call) {
      calls.push({ invoice: event.data.invoice, idempotencyKey: call.idempotencyKey })
      return options.perform ? options.perform(event, call) : `number of ${event.data.invoice}`
    },
  })
  return { calls, subscription }
}

async function work(stack: AsyncDisposableStack, options: Options = {}) {
  const { calls, subscription } = issuer(options)
  const hints = await startHints(database)
  stack.defer(() => hints.close())
  const transport = postgresTransport({ database, hints })
  await routeEvents(database, 'database')
  const failures: Error[] = []
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void failures.push(error) }
  const worker = await startWorker({ database, transport, subscriptions: [subscription], observer })
  stack.defer(() => worker.drain(500))
  return { calls, worker, failures }
}

const ask = (...invoices: string[]) =>
  database.transaction((tx) =>
    emitAll(
      tx,
      invoices.map((name) => [Asked, { key: name.split(':')[1] ?? name, invoice: name }] as const),
    ),
  )

const untilBooked = (count: number) =>
  waitFor(async () => ((await booked()).length >= count ? booked() : undefined), { what: `${count} are booked` })
const untilDead = (count = 1) =>
  waitFor(async () => ((await dead()).length >= count ? dead() : undefined), { what: `${count} are dead` })

describe('an outside call and its effect', () => {
  test('happen, and nothing is left of the answer', async () => {
    await using stack = new AsyncDisposableStack()
    const { calls } = await work(stack)
    const ids = await ask('a', 'b')
    expect((await untilBooked(2)).toSorted((a, b) => (a.invoice < b.invoice ? -1 : 1))).toEqual([
      { invoice: 'a', answer: 'number of a' },
      { invoice: 'b', answer: 'number of b' },
    ])
    expect(calls.map(({ idempotencyKey }) => idempotencyKey).sort()).toEqual(ids.sort())
    expect(await database.sql`select 1 from kerp.perform_results`).toEqual([])
  })

  test('do not call again when the effect could not be committed', async () => {
    await using stack = new AsyncDisposableStack()
    let fails = 2
    const { calls } = await work(stack, {
      async commit(answer: string, tx, event) {
        await book(answer, tx, event)
        if (fails-- > 0) await tx.query('select 1 / 0')
      },
    })
    await ask('a')
    expect(await untilBooked(1)).toEqual([{ invoice: 'a', answer: 'number of a' }])
    expect(calls).toHaveLength(1)
    expect(fails).toBe(-1)
  })

  test('call again after a call that failed, with the same key', async () => {
    await using stack = new AsyncDisposableStack()
    let fails = 2
    const { calls } = await work(stack, {
      perform: async () => (fails-- > 0 ? Promise.reject(new Error('busy')) : 'ok'),
    })
    const [id] = await ask('a')
    await untilBooked(1)
    expect(calls.map(({ idempotencyKey }) => idempotencyKey)).toEqual([id, id, id])
  })

  test('end in the dead letters after the last attempt, or at once when that is permanent', async () => {
    await using stack = new AsyncDisposableStack()
    const { calls } = await work(stack, {
      perform: async ({ data }) => Promise.reject(data.invoice === 'a' ? new Error('busy') : permanent('wrong')),
    })
    await ask('a', 'b')
    const letters = await untilDead(2)
    expect(letters.map(({ reason, attempts }) => [reason, attempts]).sort()).toEqual([
      ['attempts', 3],
      ['permanent', 1],
    ])
    expect(calls).toHaveLength(4)
  })

  test('wait without spending an attempt when it is not now', async () => {
    await using stack = new AsyncDisposableStack()
    let closed = 4
    await work(stack, { perform: async () => (closed-- > 0 ? Promise.reject(notNow(10)) : 'ok') })
    await ask('a')
    await untilBooked(1)
    expect(await dead()).toEqual([])
  })

  test('are tried again when it is time, not at some later look', async () => {
    await using stack = new AsyncDisposableStack()
    const at: number[] = []
    const perform = async () => (at.push(performance.now()) < 4 ? Promise.reject(notNow(20)) : 'ok')
    await work(stack, { perform })
    await ask('a')
    await untilBooked(1)
    // Three waits of 20 ms.
    expect(at.at(-1)! - at[0]!).toBeLessThan(1500)
  })

  test('need no effect of their own, and no answer', async () => {
    await using stack = new AsyncDisposableStack()
    const { calls } = await work(stack, { perform: async () => undefined, commit: () => {} })
    await ask('a')
    await waitFor(async () => calls.length > 0 && (await database.sql`select 1 from kerp.deliveries`).length === 0)
    expect(await database.sql`select 1 from kerp.perform_results`).toEqual([])
  })

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['NUL and half an emoji', 'a\u0000\ud83d'],
    ['an amount of won', 42_000_000n],
  ])('take whatever is answered: %s', async (_, answer) => {
    await using stack = new AsyncDisposableStack()
    const seen: unknown[] = []
    const { calls } = await work(stack, { perform: async () => answer, commit: (given) => seen.push(given) })
    await ask('a')
    await waitFor(() => seen.length > 0 || calls.length > 1, { what: 'the effect' })
    expect({ seen, calls: calls.length }).toEqual({ seen: [answer], calls: 1 })
  })

  test('do not call for ever when the answer cannot be kept', async () => {
    await using stack = new AsyncDisposableStack()
    const round: { self?: unknown } = {}
    round.self = round
    const { calls } = await work(stack, { perform: async () => round })
    await ask('a')
    await waitFor(async () => (await dead()).length > 0 || (await booked()).length > 0, {
      what: 'an end',
      timeoutMs: 3000,
    })
    expect(calls.length).toBeLessThanOrEqual(3)
  })

  test('get the same answer at a second try of the effect as at the first', async () => {
    await using stack = new AsyncDisposableStack()
    const seen: unknown[] = []
    await work(stack, {
      perform: async () => ({ issuedAt: new Date(0), note: undefined }),
      commit(answer) {
        seen.push(answer)
        if (seen.length === 1) throw new Error('not yet')
      },
    })
    await ask('a')
    await waitFor(() => seen.length === 2)
    expect(seen[1]).toStrictEqual(seen[0])
  })

  test('are tried again as declared, whatever the error says', async () => {
    await using stack = new AsyncDisposableStack()
    await work(stack, { perform: async () => Promise.reject(new Error('NUL \u0000 and half \ud83d')) })
    await ask('a')
    expect(await untilDead()).toMatchObject([{ reason: 'attempts', attempts: 3 }])
  })

  test('come one after the other within a key, and a failed one is not overtaken', async () => {
    await using stack = new AsyncDisposableStack()
    let fails = 1
    await work(stack, {
      perform: async ({ data }) => (data.invoice === 'a:k' && fails-- > 0 ? Promise.reject(new Error('busy')) : 'ok'),
    })
    await ask('a:k', 'b:k', 'c:k', 'd:j')
    const order = (await untilBooked(4)).map(({ invoice }) => invoice).filter((name) => name.endsWith('k'))
    expect(order).toEqual(['a:k', 'b:k', 'c:k'])
  })

  test('of others do not wait for a slow one', async () => {
    await using stack = new AsyncDisposableStack()
    const slow = Promise.withResolvers<string>()
    await work(stack, { perform: async ({ data }) => (data.invoice === 'slow' ? slow.promise : 'ok') })
    await ask('slow', 'a', 'b')
    await untilBooked(2)
    slow.resolve('late')
    expect((await untilBooked(3)).at(-1)).toEqual({ invoice: 'slow', answer: 'late' })
  })

  test('are aborted at their deadline, and tried again', async () => {
    await using stack = new AsyncDisposableStack()
    const aborted: unknown[] = []
    let hangs = 1
    await work(stack, {
      deadline: '50ms',
      perform: (_, { signal }) => {
        signal.addEventListener('abort', () => aborted.push(signal.reason))
        return hangs-- > 0 ? new Promise(() => {}) : Promise.resolve('ok')
      },
    })
    await ask('a')
    await untilBooked(1)
    expect(aborted).toMatchObject([{ code: 'DEADLINE_EXCEEDED' }])
  })

  test('are told when the worker stops, and are done by the next one', async () => {
    await using stack = new AsyncDisposableStack()
    const reasons: unknown[] = []
    const first = await work(stack, {
      perform: (_, { signal }) =>
        new Promise((_resolve, reject) =>
          signal.addEventListener('abort', () => (reasons.push(signal.reason), reject(signal.reason))),
        ),
    })
    await ask('a')
    await waitFor(() => first.calls.length === 1)
    await first.worker.drain(20)
    expect(reasons).toMatchObject([{ code: 'WORKER_STOPPING' }])
    await work(stack)
    await untilBooked(1)
    expect(await dead()).toEqual([])
  })

  test('are booked once although a part of the batch is taken by somebody else meanwhile', async () => {
    await using stack = new AsyncDisposableStack()
    await work(stack)
    await work(stack)
    const names = Array.from({ length: 100 }, (_, index) => `i${index}`)
    await ask(...names)
    await untilBooked(100)
    expect((await booked()).map(({ invoice }) => invoice).sort()).toEqual(names.toSorted())
  })
})

describe('on a broker that delivers twice', () => {
  async function workOnBroker(stack: AsyncDisposableStack, faults: MemoryFaults, options: Options) {
    const { calls, subscription } = issuer(options)
    const transport = memoryTransport({ faults })
    stack.defer(() => transport.close())
    await routeEvents(database, 'broker')
    const worker = await startWorker({ database, transport, subscriptions: [subscription] })
    stack.defer(() => worker.drain(500))
    const relay = startRelay({ database, transport })
    stack.defer(() => relay.stop())
    return { calls, transport }
  }

  test('the effect happens once', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport } = await workOnBroker(stack, { onPublish: () => ({ duplicate: true }) }, {})
    await ask('a', 'b', 'c')
    await untilBooked(3)
    await waitFor(async () => {
      const { ready, inFlight, delayed } = await transport.depth({ name: 'issuer', events: [] })
      return ready + inFlight + delayed === 0
    })
    expect((await booked()).map(({ invoice }) => invoice).sort()).toEqual(['a', 'b', 'c'])
  })

  test('the copy that makes the effect has the answer, also when another one has failed to', async () => {
    await using stack = new AsyncDisposableStack()
    const seen: unknown[] = []
    const { transport, calls } = await workOnBroker(
      stack,
      {},
      {
        async commit(answer, tx, event) {
          seen.push(answer)
          if (seen.length > 1) return
          transport.broker.accept({ ...event, key: null }, { evenTwice: true })
          // Time enough for the copy to find the answer and to wait for its turn.
          for (let turn = 0; turn < 200; turn++) await tx.query('select 1')
          throw new Error('not yet')
        },
      },
    )
    await ask('a')
    await waitFor(() => seen.length === 2)
    expect({ seen, calls: calls.length }).toEqual({ seen: ['number of a', 'number of a'], calls: 1 })
  })
})
