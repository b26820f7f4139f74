import { expect } from 'vitest'
import type { Subscription } from '../../engine/transport.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import { ack, freshName, newEnvelope, retry, work } from './helpers.ts'

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
  await expectDepth(bench, subscription, { ready: 0, inFlight: 0, delayed: 0, oldestAgeMs: null })
  await bench.publish(subscription, 5)
  await expectDepth(bench, subscription, { ready: 5, inFlight: 0, delayed: 0 })

  const finish = bench.gate()
  const consumer = bench.consume(
    subscription,
    () => (consumer.seen.length === 1 ? retry(60_000) : finish.opened.then(() => ack)),
    { inFlight: 1 },
  )
  const delayed = bench.transport.capabilities.delay === 'native' ? 1 : expect.any(Number)
  await consumer.waitFor(2)
  await expectDepth(bench, subscription, { ready: 3, inFlight: 1, delayed })
  expect((await bench.depth(subscription)).oldestAgeMs).toBeGreaterThan(0)
  finish.open()
  await expectDepth(bench, subscription, { ready: 0, inFlight: 0, delayed })
}

/** Waits for it, as some brokers count a moment later. */
async function expectDepth(bench: Bench, subscription: Subscription, expected: object): Promise<void> {
  const matches = async () => {
    expect(await bench.depth(subscription)).toMatchObject(expected)
    return true
  }
  await waitFor(matches, { everyMs: 20, what: `the depth is ${JSON.stringify(expected)}` })
}

export async function ensureIsIdempotent(bench: Bench): Promise<void> {
  const { transport } = bench
  const events = [freshName('wanted'), freshName('no-longer-wanted')]
  const name = freshName('consumer')
  const topology = { subscriptions: [{ name, events }] }

  const planned = await transport.ensure(topology, { dryRun: true })
  expect(planned.created.some((thing) => thing.includes(name))).toBe(true)
  expect(await transport.ensure(topology)).toEqual(planned)
  expect(await transport.ensure(topology)).toEqual({ created: [], drift: [] })
  expect(await transport.ensure(topology, { dryRun: true })).toEqual({ created: [], drift: [] })

  const { created, drift } = await transport.ensure({ subscriptions: [{ name, events: events.slice(0, 1) }] })
  expect(created).toEqual([])
  expect(drift.length).toBeGreaterThan(0)
  expect(drift.every((sentence) => sentence.includes(name))).toBe(true)
  expect(await transport.ensure(topology), 'nothing was changed').toEqual({ created: [], drift: [] })
  await bench.publishAll(events.map((type) => newEnvelope(type)))
  await expectDepth(bench, { name, events }, { ready: 2 })
}
