import { expect } from 'vitest'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import { ack, idsOf, total, work } from './helpers.ts'

export async function inFlightLimit(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  let mostHeld = 0
  const consumer = bench.consume(
    subscription,
    async () => {
      mostHeld = Math.max(mostHeld, consumer.inFlight)
      await work(10)
      return ack
    },
    { inFlight: 5, batch: 3, parallel: 4 },
  )
  await bench.publish(subscription, 30)
  await bench.waitUntilEmpty(subscription)
  expect(consumer.most).toBeLessThanOrEqual(5)
  expect(mostHeld).toBeLessThanOrEqual(5)
  expect(consumer.most).toBeGreaterThan(1)
}

export async function pauseStopsIntake(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const finish = bench.gate()
  const consumer = bench.consume(subscription, () => finish.opened.then(() => ack), { inFlight: 1, parallel: 1 })
  const sent = await bench.publish(subscription, 1)
  await consumer.waitFor(1)
  consumer.pause()
  sent.push(...(await bench.publish(subscription, 3)))
  finish.open()
  await waitFor(async () => total(await bench.depth(subscription)) === 3, {
    everyMs: 20,
    what: 'the started one is done',
  })
  await otherTrafficGoesBy(bench)
  expect(consumer.seen).toHaveLength(1)
  consumer.resume()
  await bench.waitUntilEmpty(subscription)
  expect(consumer.ids().toSorted()).toEqual(idsOf(sent).toSorted())
}

/** What could have been handed out has been, when events published later have gone all their way elsewhere. */
async function otherTrafficGoesBy(bench: Bench): Promise<void> {
  const elsewhere = await bench.subscribe()
  const other = bench.consume(elsewhere, () => ack)
  for (let count = 1; count <= 5; count++) {
    await bench.publish(elsewhere, 1)
    await other.waitFor(count)
  }
}

export async function drainReturnsUnstarted(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const finish = bench.gate()
  // A lease far longer than the test may take: nothing comes back by itself.
  const lease = 60_000
  const leaving = bench.consume(subscription, () => finish.opened.then(() => ack), { inFlight: 2, parallel: 2, lease })
  const sent = await bench.publish(subscription, 8)
  await leaving.waitFor(2)
  let drained = false
  const draining = leaving.drain(60_000).then(() => (drained = true))

  const staying = bench.consume(subscription, () => ack, { on: await bench.another(), lease })
  await staying.waitFor(6)
  expect(leaving.seen).toHaveLength(2)
  expect(staying.seen.every(({ attempt }) => attempt === 1)).toBe(true)
  expect(drained).toBe(false)
  finish.open()
  await draining
  sent.push(...(await bench.publish(subscription, 4)))
  await bench.waitUntilEmpty(subscription)
  expect(leaving.seen).toHaveLength(2)
  expect([...leaving.ids(), ...staying.ids()].toSorted()).toEqual(idsOf(sent).toSorted())
}
