import { expect } from 'vitest'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import { ack, idsOf, retry, work } from './helpers.ts'

export async function slowHandlerNotRedelivered(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const slow = bench.consume(subscription, async ({ signal }) => {
    await work(bench.leaseMs * 3)
    expect(signal.aborted).toBe(false)
    return ack
  })
  await bench.publish(subscription, 1)
  await slow.waitFor(1)
  const idle = bench.consume(subscription, () => ack, { on: await bench.another() })
  await bench.waitUntilEmpty(subscription)
  expect(slow.seen).toHaveLength(1)
  expect(idle.seen).toHaveLength(0)
}

/** One key, so that they are handled in turn and the last one waits for more than twice the lease. */
export async function bufferKeepsLease(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const sent = await bench.publish(subscription, 4, { key: 'one' })
  const slow = async () => {
    await work(bench.leaseMs * 0.8)
    return ack
  }
  const first = bench.consume(subscription, slow, { batch: 4, inFlight: 4 })
  await first.waitFor(1)
  const second = bench.consume(subscription, slow, { on: await bench.another() })
  await bench.waitUntilEmpty(subscription)
  expect([...first.ids(), ...second.ids()].toSorted()).toEqual(idsOf(sent).toSorted())
  expect([...first.seen, ...second.seen].every(({ attempt, signal }) => attempt === 1 && !signal.aborted)).toBe(true)
}

export async function lostLeaseAborts(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const staleAck = bench.gate()
  const secondTurn = bench.gate()
  const victim = await bench.another()
  const stale = bench.consume(subscription, () => staleAck.opened.then(() => ack), { on: victim })
  await bench.publish(subscription, 1)
  const [seen] = await stale.waitFor(1)
  // Later, let through again, it must not take the message a second time.
  stale.pause()
  const revive = await bench.crash(victim)

  const next = bench.consume(subscription, async () => {
    if (next.seen.length > 1) return ack
    await secondTurn.opened
    return retry(10, 'consumer')
  })
  await next.waitFor(1)
  await waitFor(() => seen!.signal.aborted, { what: 'the signal of the lost message is aborted' })

  await revive?.()
  staleAck.open()
  if (revive) await waitFor(() => stale.inFlight === 0, { what: 'the stale ack was sent' })
  secondTurn.open()
  // Had the stale ack counted, there would be nothing to hand out again.
  await next.waitFor(2)
  await bench.waitUntilEmpty(subscription)
}

export async function crashedConsumersMessagesComeBack(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const never = bench.gate()
  const victim = await bench.another()
  const crashed = bench.consume(subscription, () => never.opened.then(() => ack), { on: victim, inFlight: 2 })
  const sent = await bench.publish(subscription, 2)
  await crashed.waitFor(2)
  const crashedAt = performance.now()
  await bench.crash(victim)
  const heir = bench.consume(subscription, () => ack)
  await heir.waitFor(2)
  // The lease, and what a busy machine adds to it.
  expect(performance.now() - crashedAt).toBeLessThan(bench.leaseMs + 5000)
  expect(heir.ids().toSorted()).toEqual(idsOf(sent).toSorted())
}
