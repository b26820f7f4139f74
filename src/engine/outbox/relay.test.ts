import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { Envelope } from '../../kernel/envelope.ts'
import { defineEvent } from '../../kernel/event.ts'
import { newId } from '../../kernel/ids.ts'
import { KerpError } from '../../kernel/errors.ts'
import { sleep } from '../../kernel/clock.ts'
import { openProxy } from '../../testing/proxy.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { VirtualClock } from '../../testing/virtual-clock.ts'
import { waitFor } from '../../testing/wait.ts'
import type { MemoryBrokerOptions, MemoryFaults } from '../../transports/memory/index.ts'
import { memoryTransport } from '../../transports/memory/index.ts'
import type { Database } from '../database/database.ts'
import { silentObserver } from '../telemetry/observer.ts'
import type { PublishResult } from '../transport.ts'
import { listDeadLetters } from '../worker/dead-letters.ts'
import { emit, emitAll } from './emit.ts'
import { startHints } from './hints.ts'
import { lifeOfEvent } from './lineage.ts'
import type { OutboxRow, OutboxStore } from './store.ts'
import { runRelay, startRelay } from './relay.ts'

const Sent = defineEvent('parcel.sent', {
  data: z.object({ key: z.string(), number: z.number(), weight: z.string().optional() }),
  key: ({ key }) => key,
})
const Ignored = defineEvent('parcel.ignored', { data: z.object({}) })

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
})
beforeEach(() => database.query('truncate kerp.outbox_events, kerp.dead_letters'))
afterAll(async () => {
  await database.close()
  await home.drop()
})

/** A broker without dedup that one consumer is subscribed to; what it has taken is told in order, as `key number`. */
async function openBroker(
  stack: AsyncDisposableStack,
  onPublish?: MemoryFaults['onPublish'],
  options: MemoryBrokerOptions = {},
) {
  const published: string[] = []
  const faults: MemoryFaults = {
    onPublish(envelope) {
      const fault = onPublish?.(envelope)
      if (fault?.lose !== 'request') published.push(nameOf(envelope))
      return fault
    },
  }
  const transport = memoryTransport({ dedupWindow: 0, ...options, faults })
  stack.defer(() => transport.close())
  await transport.ensure({ subscriptions: [{ name: 'consumer', events: [Sent.name] }] })
  return { transport, published }
}

function nameOf({ data }: Envelope): string {
  const { key, number } = data as { key: string; number: number }
  return `${key} ${number}`
}

async function relay(
  stack: AsyncDisposableStack,
  transport: Parameters<typeof startRelay>[0]['transport'],
  on = database,
) {
  const failures: Error[] = []
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void failures.push(error) }
  const hints = await startHints(on)
  stack.defer(() => hints.close())
  const relay = startRelay({ database: on, transport, hints, observer })
  stack.defer(() => relay.stop())
  return { relay, failures }
}

const send = (...events: [key: string, number: number][]) =>
  database.transaction((tx) =>
    emitAll(
      tx,
      events.map(([key, number]) => [Sent, { key, number }] as const),
    ),
  )

const outboxRows = async () => (await database.sql`select 1 from kerp.outbox_events`).length
const emptied = () => waitFor(async () => (await outboxRows()) === 0, { what: 'the outbox is empty' })
const byKey = (published: readonly string[]) => Object.groupBy(published, (name) => name.split(' ')[0]!)

describe('the relay', () => {
  test('hands what was committed to the broker, before it ran and while it runs, and keeps nothing', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack)
    await send(['a', 1], ['b', 1])
    await relay(stack, transport)
    await emptied()
    await send(['a', 2])
    await emptied()
    expect(byKey(published)).toEqual({ a: ['a 1', 'a 2'], b: ['b 1'] })
  })

  test('keeps the order within each key when there is plenty', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack)
    await relay(stack, transport)
    for (let number = 0; number < 5; number++) {
      await send(
        ...Array.from({ length: 300 }, (_, index): [string, number] => [`k${index % 7}`, number * 300 + index]),
      )
    }
    await emptied()
    expect(published).toHaveLength(1500)
    for (const ofKey of Object.values(byKey(published))) {
      const numbers = ofKey!.map((name) => Number(name.split(' ')[1]))
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
    }
  })

  test('lets later events of a key wait for one that cannot be published, and others go on', async () => {
    await using stack = new AsyncDisposableStack()
    let refusals = 3
    const { transport, published } = await openBroker(stack, (envelope) =>
      nameOf(envelope) === 'a 1' && refusals-- > 0 ? { lose: 'request' } : undefined,
    )
    await relay(stack, transport)
    await send(['a', 1], ['a', 2], ['b', 1], ['a', 3])
    await waitFor(() => published.includes('b 1'))
    await send(['a', 4], ['b', 2])
    await emptied()
    expect(byKey(published)).toEqual({ a: ['a 1', 'a 2', 'a 3', 'a 4'], b: ['b 1', 'b 2'] })
  })

  test('publishes again what may have got lost, and does not let others overtake it', async () => {
    await using stack = new AsyncDisposableStack()
    let lost = 2
    const { transport, published } = await openBroker(stack, (envelope) =>
      nameOf(envelope) === 'a 1' && lost-- > 0 ? { lose: 'answer' } : undefined,
    )
    await relay(stack, transport)
    await send(['a', 1], ['a', 2])
    await emptied()
    expect(published).toEqual(['a 1', 'a 1', 'a 1', 'a 2'])
  })

  test('finds what a slow transaction commits after later ones', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack)
    await relay(stack, transport)
    await database.transaction(async (tx) => {
      await emit(tx, Sent, { key: 'a', number: 1 })
      await send(['a', 2], ['a', 3])
      await waitFor(() => published.length === 2, { what: 'the later ones are published' })
    })
    await emptied()
    expect(published).toEqual(['a 2', 'a 3', 'a 1'])
  })

  test('is done with an event that nobody is subscribed to', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack, undefined, { refusesUnroutable: true })
    await relay(stack, transport)
    const id = await database.transaction((tx) => emit(tx, Ignored, {}))
    await send(['a', 1])
    await emptied()
    expect(published).toContain('a 1')
    expect(await lifeOfEvent(database, id)).toMatchObject({ eventId: id, relayed: { at: expect.any(String) } })
    expect((await listDeadLetters(database, { limit: 10 })).items).toEqual([])
  })

  test('puts what the broker will never take to the dead letters, out of the way of what follows', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack, undefined, { maxBytes: 1000 })
    await relay(stack, transport)
    await database.transaction(async (tx) => {
      await emit(tx, Sent, { key: 'a', number: 1, weight: 'x'.repeat(1000) })
      await emit(tx, Sent, { key: 'a', number: 2 })
    })
    await emptied()
    expect(published.at(-1)).toBe('a 2')
    expect((await listDeadLetters(database, { limit: 10 })).items).toMatchObject([
      {
        consumer: 'relay',
        eventType: 'parcel.sent',
        reason: 'unpublishable',
        message: expect.stringContaining('bytes'),
      },
    ])
  })

  test('goes on when the database was away for a moment', async () => {
    await using stack = new AsyncDisposableStack()
    const proxy = await openProxy(Number(new URL(home.url).port))
    stack.defer(() => proxy.close())
    const { transport, published } = await openBroker(stack)
    const { failures } = await relay(stack, transport, await openThrough(stack, proxy.port))
    await send(['a', 1])
    await emptied()
    proxy.cut()
    await send(['a', 2])
    await waitFor(() => failures.length > 0, { what: 'the loss is told' })
    proxy.mend()
    await emptied()
    expect(new Set(published)).toEqual(new Set(['a 1', 'a 2']))
  })
})

describe('of several relays', () => {
  test('one publishes each event, once', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack)
    await relay(stack, transport, await openNamed(stack, 'kerp-relay-1'))
    await relay(stack, transport, await openNamed(stack, 'kerp-relay-2'))
    const all = Array.from({ length: 400 }, (_, index): [string, number] => [`k${index % 40}`, index])
    for (let from = 0; from < all.length; from += 50) await send(...all.slice(from, from + 50))
    await emptied()
    expect(published.toSorted()).toEqual(all.map(([key, number]) => `${key} ${number}`).toSorted())
  })

  const leaders = async () =>
    database.sql<{ pid: number; name: string }>`
      select distinct a.pid, a.application_name as name from pg_locks l join pg_stat_activity a using (pid)
      where l.locktype = 'advisory' and l.classid = 537730 and l.granted and a.datname = current_database()`

  test('another takes over when the leader is cut off', async () => {
    await using stack = new AsyncDisposableStack()
    const proxy = await openProxy(Number(new URL(home.url).port))
    stack.defer(() => proxy.close())
    const { transport, published } = await openBroker(stack)
    await relay(stack, transport, await openThrough(stack, proxy.port))
    await waitFor(async () => (await leaders()).length === 1)
    await relay(stack, transport, await openNamed(stack, 'kerp-relay-heir'))
    proxy.cut()
    await send(['a', 1], ['b', 1])
    await emptied()
    expect((await leaders()).map(({ name }) => name)).toEqual(['kerp-relay-heir'])
    expect(published.toSorted()).toEqual(['a 1', 'b 1'])
  })

  test('somebody leads again after the leader’s connection was ended, and nothing is published twice', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport, published } = await openBroker(stack)
    await relay(stack, transport, await openNamed(stack, 'kerp-relay-1'))
    await relay(stack, transport, await openNamed(stack, 'kerp-relay-2'))
    await send(['a', 1])
    await emptied()
    for (const { pid } of await leaders()) await database.sql`select pg_terminate_backend(${pid})`
    await send(['a', 2], ['a', 3])
    await emptied()
    expect(published).toEqual(['a 1', 'a 2', 'a 3'])
  })

  test('one that stops lets the others lead at once', async () => {
    await using stack = new AsyncDisposableStack()
    const { transport } = await openBroker(stack)
    const first = await relay(stack, transport, await openNamed(stack, 'kerp-relay-1'))
    await waitFor(async () => (await leaders()).length === 1)
    await first.relay.stop()
    expect(await leaders()).toEqual([])
  })
})

/** The relay by itself on a clock of its own, with an outbox in memory that takes two milliseconds to read. */
describe('by the clock', () => {
  function start(publish: (envelope: Envelope) => PublishResult) {
    const clock = new VirtualClock()
    const rows: OutboxRow[] = []
    const published: string[] = []
    const buried: string[] = []
    let reads = 0
    let hint = () => {}
    const remove = (row: OutboxRow) => void rows.splice(rows.indexOf(row), 1)
    const outbox: OutboxStore = {
      pending: async () => (rows.length ? [0] : []),
      async read(_, afterId, limit) {
        reads++
        await sleep(clock, 2)
        return rows.filter(({ id }) => id > afterId).slice(0, limit)
      },
      confirm: async (_, done) => done.forEach(remove),
      bury: async (_, row) => (buried.push(nameOf(row.envelope)), remove(row)),
    }
    const transport = memoryTransport({ clock })
    const relay = runRelay({
      outbox,
      clock,
      observer: silentObserver,
      hints: { listen: (_, wake) => ((hint = wake), () => {}) },
      leadership: { follow: (lead) => lead(0, new AbortController().signal), release: async () => {} },
      transport: {
        ...transport,
        async publish(batch) {
          const results = batch.map(publish)
          batch.forEach((envelope, index) => results[index]!.ok && published.push(nameOf(envelope)))
          return results
        },
      },
    })
    return {
      clock,
      published,
      buried,
      stop: () => clock.run(relay.stop()),
      get reads() {
        return reads
      },
      send(key: string, number: number) {
        const envelope = {
          eventId: newId(),
          eventType: Sent.name,
          timestamp: '2026-01-01T00:00:00Z',
          data: { key, number },
        }
        rows.push({ id: number, envelope: { ...envelope, version: 1, key, companyId: 'one' } })
        hint()
      },
    }
  }

  const refused = (retryable: boolean): PublishResult => ({
    ok: false,
    error: new KerpError('TRANSPORT_FAILED', 'no'),
    retryable,
  })

  test('a later event of a key does not slip past at the moment when the wait of an earlier one ends', async () => {
    // Whenever in that wait the second one comes.
    for (let afterMs = 90; afterMs < 115; afterMs++) {
      let refusals = 1
      const relay = start(() => (refusals-- > 0 ? refused(true) : { ok: true }))
      relay.send('a', 1)
      await relay.clock.advance(2)
      await relay.clock.advance(afterMs)
      relay.send('a', 2)
      await relay.clock.advance(5000)
      expect(relay.published, `the second came after ${afterMs} ms`).toEqual(['a 1', 'a 2'])
      await relay.stop()
    }
  })

  test('once there is nothing to do it looks a few times a second, also after an event was first put off and then given up', async () => {
    let tries = 0
    const relay = start(() => (tries++ === 0 ? refused(true) : refused(false)))
    relay.send('a', 1)
    await relay.clock.advance(3000)
    expect(relay.buried).toEqual(['a 1'])
    const before = relay.reads
    await relay.clock.advance(10_000)
    expect(relay.reads - before).toBeLessThan(50)
    await relay.stop()
  })

  test('what cannot be published is tried again ever more rarely, at least twice a minute', async () => {
    let tries = 0
    const relay = start(() => (tries++, refused(true)))
    relay.send('a', 1)
    await relay.clock.advance(60_000)
    expect(tries).toBeLessThan(12)
    const before = tries
    await relay.clock.advance(60_000)
    expect(tries - before).toBeGreaterThanOrEqual(1)
    await relay.stop()
  })
})

async function openNamed(stack: AsyncDisposableStack, applicationName: string): Promise<Database> {
  const opened = await home.open({ applicationName })
  stack.defer(() => opened.close())
  return opened
}

async function openThrough(stack: AsyncDisposableStack, port: number): Promise<Database> {
  const url = Object.assign(new URL(home.url), { host: `127.0.0.1:${port}` }).toString()
  const opened = await home.open({ url, applicationName: 'kerp-relay-cut' })
  stack.defer(() => opened.close())
  return opened
}
