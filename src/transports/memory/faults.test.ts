import { describe, expect, it } from 'vitest'
import type { ConsumeOptions, DeadLetter, Delivery, Settlement } from '../../engine/transport.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { VirtualClock } from '../../testing/virtual-clock.ts'
import type { MemoryBrokerOptions, MemoryFaults } from './index.ts'
import { memoryBroker, memoryTransport } from './index.ts'

const leaseMs = 30_000
const subscription = { name: 'consumer', events: ['happened'] }

/** What was handed out, as `id/attempt@moment`. */
type Trace = string[]

async function setUp(faults: MemoryFaults = {}, given: MemoryBrokerOptions = {}) {
  const clock = new VirtualClock()
  const broker = memoryBroker({ clock, ...given })
  const connect = () => memoryTransport({ broker, faults })
  const transport = connect()
  await transport.ensure({ subscriptions: [subscription] })
  const letters: DeadLetter[] = []
  const errors: Error[] = []
  const options: ConsumeOptions = {
    inFlight: 10,
    batch: 10,
    parallel: 1,
    lease: leaseMs,
    deadLetter: async (letter) => void letters.push(letter),
    onError: (error) => void errors.push(error),
  }
  const trace: Trace = []
  const consume = (
    handle: (delivery: Delivery) => Settlement | Promise<Settlement> = () => ({ do: 'ack' }),
    { on = transport, ...more }: Partial<ConsumeOptions> & { on?: typeof transport } = {},
  ) =>
    on.consume(
      subscription,
      (batch) => {
        for (const { envelope, attempt } of batch)
          trace.push(`${nameOf(envelope.eventId)}/${attempt}@${clock.monotonic()}`)
        return Promise.all(batch.map(handle))
      },
      { ...options, ...more },
    )
  return { clock, broker, transport, connect, consume, trace, letters, errors }
}

/** Short names for the reader, as ids that are valid. */
const idOf = (name: string) => `00000000-0000-7000-8000-${Buffer.from(name.padStart(6)).toString('hex')}`
const nameOf = (id: string) => Buffer.from(id.slice(-12), 'hex').toString().trim()

const event = (name: string, key: string | null = null): Envelope => ({
  eventId: idOf(name),
  eventType: 'happened',
  timestamp: '2026-01-01T00:00:00.000Z',
  data: {},
  version: 1,
  key,
  companyId: 'company-1',
})

const first =
  <Fault>(fault: Fault) =>
  () => {
    const answer = asked.has(fault) ? undefined : fault
    asked.add(fault)
    return answer
  }
const asked = new Set<unknown>()

describe('faults of the memory broker', () => {
  it('gives a message back when its lease has run out after a lost settlement, and holds its key back until then', async () => {
    const { clock, transport, consume, trace } = await setUp({ onSettle: first({ lose: true }) })
    consume(undefined, { batch: 1 })
    await transport.publish([event('a1', 'a'), event('a2', 'a'), event('b1', 'b')])
    await clock.runUntilIdle()
    expect(trace).toEqual(['a1/1@0', 'b1/1@0', `a1/2@${leaseMs}`, `a2/1@${leaseMs}`])
  })

  it('ignores a settlement that comes after its lease', async () => {
    const { clock, transport, consume, trace } = await setUp({ onSettle: first({ delayMs: leaseMs + 1 }) })
    consume()
    await transport.publish([event('a')])
    await clock.runUntilIdle()
    expect(trace).toEqual(['a/1@0', `a/2@${leaseMs}`])
    expect(await transport.depth(subscription)).toMatchObject({ ready: 0, inFlight: 0, delayed: 0 })
  })

  it('loses the answer to a publish, so that the event is published again and deduplicated within the window', async () => {
    const { clock, transport, consume, trace } = await setUp(
      { onPublish: first({ lose: 'answer' }) },
      { dedupWindow: '1m' },
    )
    consume()
    expect(await transport.publish([event('a')])).toMatchObject([{ ok: false, retryable: true }])
    await clock.advance(59_999)
    expect(await transport.publish([event('a')])).toEqual([{ ok: true }])
    await clock.advance(1)
    expect(trace).toEqual(['a/1@0'])
    await transport.publish([event('a')])
    await clock.advance(0)
    expect(trace).toEqual(['a/1@0', 'a/1@60000'])
  })

  it('loses a publish, repeats one, delays one', async () => {
    const faults: Record<string, object> = {
      lost: { lose: 'request' },
      twice: { duplicate: true },
      late: { delayMs: 500 },
    }
    const { clock, transport, consume, trace } = await setUp({ onPublish: ({ eventId }) => faults[nameOf(eventId)] })
    consume()
    const publishing = transport.publish([event('lost'), event('twice'), event('late')])
    expect((await clock.run(publishing)).map(({ ok }) => ok)).toEqual([false, true, true])
    await clock.runUntilIdle()
    expect(trace).toEqual(['twice/1@0', 'twice/1@0', 'late/1@500'])
  })

  it('keeps the lease of what is on its way to the handler, and returns it at once on drain', async () => {
    const { clock, transport, connect, consume, trace } = await setUp({ onDeliver: first({ delayMs: leaseMs * 3 }) })
    const consumer = consume()
    await transport.publish([event('a')])
    await clock.advance(leaseMs * 2)
    expect(await transport.depth(subscription)).toMatchObject({ inFlight: 1 })
    expect(consumer.inFlight).toBe(1)
    consume(undefined, { on: connect() })
    await clock.run(consumer.drain(1000))
    await clock.runUntilIdle()
    expect(trace).toEqual([`a/1@${leaseMs * 2}`])
  })

  it('hands out a batch that never arrived when its lease has run out', async () => {
    const { clock, transport, consume, trace } = await setUp({ onDeliver: first({ lose: true }) })
    consume()
    await transport.publish([event('a'), event('b')])
    await clock.runUntilIdle()
    expect(trace).toEqual([`a/2@${leaseMs}`, `b/2@${leaseMs}`])
  })

  it('hands out a message twice, in the order of its key', async () => {
    const { clock, transport, consume, trace } = await setUp({ onDeliver: first({ duplicate: true }) })
    consume(undefined, { batch: 1 })
    await transport.publish([event('a1', 'a'), event('a2', 'a')])
    await clock.runUntilIdle()
    expect(trace).toEqual(['a1/1@0', 'a1/1@0', 'a2/1@0'])
  })

  it("gives a crashed transport's messages to others at the end of their lease", async () => {
    const { clock, transport, connect, consume, trace } = await setUp()
    const victim = connect()
    consume(() => new Promise(() => {}), { on: victim })
    await transport.publish([event('a')])
    await clock.advance(leaseMs / 2)
    victim.crash()
    consume()
    await clock.runUntilIdle()
    // Its last heartbeat was sent after a third of the lease.
    expect(trace).toEqual(['a/1@0', `a/2@${leaseMs / 3 + leaseMs}`])
    await expect(victim.publish([event('b')])).rejects.toMatchObject({ code: 'TRANSPORT_CLOSED' })
  })

  it('keeps a settlement made while the broker is down, if the lease lasts until it is back', async () => {
    const { clock, broker, transport, consume, trace } = await setUp()
    consume(async () => {
      broker.stop()
      return { do: 'ack' }
    })
    await transport.publish([event('a')])
    await clock.advance(leaseMs / 2)
    expect(await transport.publish([event('b')])).toMatchObject([{ ok: false, retryable: true }])
    await expect(transport.depth(subscription)).rejects.toMatchObject({ code: 'TRANSPORT_FAILED' })
    broker.start()
    await clock.runUntilIdle()
    expect(trace).toEqual(['a/1@0'])
    expect(await transport.depth(subscription)).toMatchObject({ ready: 0, inFlight: 0 })
  })

  it('aborts the signal when the lease runs out while the broker is down, and hands out the message when it is back', async () => {
    const { clock, broker, transport, consume, trace } = await setUp()
    let signal: AbortSignal | undefined
    consume((delivery) => {
      signal ??= delivery.signal
      return delivery.attempt === 1 ? new Promise(() => {}) : { do: 'ack' }
    })
    await transport.publish([event('a')])
    await clock.advance(0)
    broker.stop()
    await clock.advance(leaseMs)
    expect(signal!.reason).toMatchObject({ code: 'LEASE_LOST' })
    broker.start()
    await clock.runUntilIdle()
    expect(trace).toEqual(['a/1@0', `a/2@${leaseMs}`])
  })

  it('forgets everything when a broker that is not durable stops', async () => {
    const { clock, broker, transport } = await setUp({}, { durable: false })
    await transport.publish([event('a')])
    broker.stop()
    broker.start()
    expect(await transport.depth(subscription)).toEqual({ ready: 0, inFlight: 0, delayed: 0, oldestAgeMs: null })
    expect(clock.pending).toBe(0)
  })
})

describe('the memory transport', () => {
  it('hands out what is there in one batch, up to its size, without letting one key crowd out the others', async () => {
    const { clock, transport } = await setUp()
    const batches: string[][] = []
    const handle = async (batch: readonly Delivery[]): Promise<Settlement[]> => {
      batches.push(batch.map(({ envelope }) => nameOf(envelope.eventId)))
      return batch.map(() => ({ do: 'ack' }))
    }
    transport.consume(subscription, handle, {
      inFlight: 4,
      batch: 4,
      parallel: 1,
      lease: leaseMs,
      deadLetter: async () => {},
    })
    await transport.publish(['a1', 'a2', 'a3', 'a4', 'b1', 'c1'].map((id) => event(id, id[0])))
    await clock.runUntilIdle()
    expect(batches).toEqual([
      ['a1', 'b1', 'c1', 'a2'],
      ['a3', 'a4'],
    ])
  })

  it('sends bytes that are no event to the dead letters, the rest of the batch to the handler', async () => {
    const { clock, broker, transport, consume, trace, letters } = await setUp()
    broker.inject('consumer', { body: '{"half', headers: {} })
    await transport.publish([event('a')])
    consume()
    await clock.runUntilIdle()
    expect(trace).toEqual(['a/1@0'])
    expect(letters).toMatchObject([{ consumer: 'consumer', reason: 'MESSAGE_UNREADABLE', raw: '{"half', attempts: 1 }])
    expect(await transport.depth(subscription)).toMatchObject({ ready: 0, inFlight: 0 })
  })

  it('takes a wrong number of settlements for a failure of the whole batch', async () => {
    const { clock, transport, errors } = await setUp()
    const attempts: number[] = []
    const handle = async (batch: readonly Delivery[]): Promise<Settlement[]> => {
      attempts.push(...batch.map(({ attempt }) => attempt))
      return batch[0]!.attempt === 1 ? [{ do: 'ack' }] : batch.map(() => ({ do: 'ack' }))
    }
    const options = { inFlight: 4, batch: 4, parallel: 1, lease: leaseMs, deadLetter: async () => {} }
    transport.consume(subscription, handle, { ...options, onError: (error) => void errors.push(error) })
    await transport.publish([event('a'), event('b')])
    await clock.runUntilIdle()
    expect(attempts).toEqual([1, 1, 2, 2])
    expect(errors).toMatchObject([{ code: 'HANDLER_FAILED' }])
  })

  it('aborts at the end of the grace time, takes the last word, and leaves the rest to its lease', async () => {
    const { clock, transport, consume, trace } = await setUp()
    const leaving = consume(
      ({ envelope, signal }) => {
        if (nameOf(envelope.eventId) === 'deaf') return new Promise(() => {})
        return new Promise((resolve) => signal.addEventListener('abort', () => resolve({ do: 'ack' })))
      },
      { batch: 1 },
    )
    await transport.publish([event('deaf'), event('obeys')])
    await clock.advance(0)
    const from = clock.monotonic()
    await clock.run(leaving.drain(5000))
    expect(clock.monotonic() - from).toBe(5250)
    expect(await transport.depth(subscription)).toMatchObject({ inFlight: 1 })
    consume()
    await clock.runUntilIdle()
    expect(trace).toEqual(['deaf/1@0', 'obeys/1@0', `deaf/2@${leaseMs}`])
  })

  it('leaves no timer behind when it is closed', async () => {
    const clock = new VirtualClock()
    const transport = memoryTransport({ clock })
    await transport.ensure({ subscriptions: [subscription] })
    const handle = async (): Promise<Settlement[]> => [{ do: 'retry', afterMs: 60_000, blame: 'message' }]
    transport.consume(subscription, handle, {
      inFlight: 1,
      batch: 1,
      parallel: 1,
      lease: leaseMs,
      deadLetter: async () => {},
    })
    await transport.publish([event('a'), event('b')])
    await clock.advance(10)
    await clock.run(transport.close())
    expect(clock.pending).toBe(0)
  })

  it('does the same every time under the same faults', async () => {
    const run = async () => {
      const dice = lcg(7)
      const { clock, transport, connect, consume, trace } = await setUp({
        onPublish: () => ({ delayMs: dice(20), duplicate: dice(10) === 0 }),
        onDeliver: () => ({ delayMs: dice(50), lose: dice(10) === 0, duplicate: dice(10) === 0 }),
        onSettle: () => ({ delayMs: dice(50), lose: dice(10) === 0 }),
      })
      const handle = (): Settlement =>
        dice(3) === 0 ? { do: 'retry', afterMs: dice(100), blame: 'message' } : { do: 'ack' }
      consume(handle, { batch: 3 })
      consume(handle, { batch: 2, on: connect() })
      await clock.run(transport.publish(Array.from({ length: 200 }, (_, n) => event(`e${n}`, `k${n % 7}`))))
      expect(await clock.runUntilIdle()).toBe(true)
      return trace
    }
    const trace = await run()
    expect(new Set(trace.map((line) => line.split('/')[0])).size).toBe(200)
    expect(await run()).toEqual(trace)
  })

  it('leaves time to everything else while a message is retried at once for ever', async () => {
    const transport = memoryTransport()
    await transport.ensure({ subscriptions: [subscription] })
    const handle = async (): Promise<Settlement[]> => [{ do: 'retry', afterMs: 0, blame: 'consumer' }]
    transport.consume(subscription, handle, {
      inFlight: 1,
      batch: 1,
      parallel: 1,
      lease: leaseMs,
      deadLetter: async () => {},
    })
    await transport.publish([event('a')])
    await new Promise((resolve) => setTimeout(resolve, 5))
    await transport.close()
  })
})

/** A small source of numbers that is the same in every run. */
function lcg(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
