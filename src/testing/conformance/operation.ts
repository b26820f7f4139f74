import { expect } from 'vitest'
import { isKerpError } from '../../kernel/errors.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import { ack, freshName, gate, newEnvelope, retry, work } from './helpers.ts'

export async function brokerRestart(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const consumer = bench.consume(subscription, () => ack, { batch: 4 })
  const publisher = publishSteadily(bench, subscription.events[0]!)
  await waitFor(() => publisher.accepted.length >= 10, { what: '10 events accepted before' })
  await bench.restartBroker()
  const before = publisher.accepted.length
  await waitFor(() => publisher.accepted.length >= before + 10, { what: '10 events accepted after' })
  await publisher.stop()
  const missing = () => publisher.accepted.filter((id) => !consumer.ids().includes(id))
  await waitFor(() => missing().length === 0, {
    timeoutMs: 20_000,
    what: () => `${missing().length} accepted events arrive`,
  })
  await bench.waitUntilEmpty(subscription)
}

/** One event after the other, each until it is accepted: as the relay does. */
function publishSteadily({ transport }: Bench, type: string) {
  const accepted: string[] = []
  let stopped = false
  const untilAccepted = async (envelope: Envelope) => {
    while (!stopped) {
      const results = await transport.publish([envelope]).catch(() => [])
      if (results[0]?.ok) return void accepted.push(envelope.eventId)
      await work(20)
    }
  }
  const run = async () => {
    while (!stopped) {
      await untilAccepted(newEnvelope(type))
      await work(1)
    }
  }
  const running = run()
  return {
    accepted,
    stop: () => {
      stopped = true
      return running
    },
  }
}

export async function depthMatches(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  expect(await bench.depth(subscription)).toEqual({ ready: 0, inFlight: 0, delayed: 0, oldestAgeMs: null })
  await bench.publish(subscription, 5)
  expect(await bench.depth(subscription)).toMatchObject({ ready: 5, inFlight: 0, delayed: 0 })

  const finish = gate()
  const consumer = bench.consume(
    subscription,
    () => (consumer.seen.length === 1 ? retry(60_000) : finish.opened.then(() => ack)),
    { inFlight: 1 },
  )
  const delayed = bench.transport.capabilities.delay === 'native' ? 1 : expect.any(Number)
  const expected = { ready: 3, inFlight: 1, delayed, oldestAgeMs: expect.any(Number) }
  await consumer.waitFor(2)
  await waitFor(async () => expect(await bench.depth(subscription)).toEqual(expected) ?? true, {
    everyMs: 20,
    what: 'depth',
  })
  expect((await bench.depth(subscription)).oldestAgeMs).toBeGreaterThan(0)

  finish.open()
  await consumer.waitFor(5)
  const last = { ready: 0, inFlight: 0, delayed }
  await waitFor(async () => expect(await bench.depth(subscription)).toMatchObject(last) ?? true, {
    everyMs: 20,
    what: 'depth',
  })
}

export async function ensureIsIdempotent(bench: Bench): Promise<void> {
  const { transport } = bench
  const [kept, wished] = [freshName('kept'), freshName('wished')]
  const declared = { name: freshName('consumer'), events: [kept] }
  const topology = { subscriptions: [declared] }

  expect(await transport.ensure(topology, { dryRun: true })).toEqual({
    created: [expect.stringContaining(declared.name)],
    drift: [],
  })
  expect((await transport.ensure(topology)).created).toHaveLength(1)
  expect(await transport.ensure(topology)).toEqual({ created: [], drift: [] })
  expect(await transport.ensure(topology, { dryRun: true })).toEqual({ created: [], drift: [] })

  const changed = { subscriptions: [{ ...declared, events: [wished] }] }
  const diff = await transport.ensure(changed)
  expect(diff.created).toEqual([])
  expect(diff.drift.length).toBeGreaterThan(0)
  expect(diff.drift.every((sentence) => sentence.includes(declared.name))).toBe(true)
  expect(await transport.ensure(changed)).toEqual(diff)
  expect(await transport.ensure(topology)).toEqual({ created: [], drift: [] })
  await expectRoutes(bench, declared.name, kept, wished)
}

async function expectRoutes({ transport, publishAll, depth }: Bench, name: string, kept: string, other: string) {
  const subscription = { name, events: [kept] }
  await publishAll([newEnvelope(kept)])
  const [result] = await transport.publish([newEnvelope(other)])
  if (result && !result.ok) expect(isKerpError(result.error, 'EVENT_UNROUTABLE')).toBe(true)
  expect((await depth(subscription)).ready).toBe(1)
}
