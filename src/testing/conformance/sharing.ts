import { expect } from 'vitest'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import { ack, idsOf } from './helpers.ts'

export async function groupsEachGetAll(bench: Bench): Promise<void> {
  const first = await bench.subscribe()
  const second = await bench.subscribe(first.events)
  const consumers = [bench.consume(first, () => ack), bench.consume(second, () => ack, { on: await bench.another() })]
  const sent = await bench.publish(first, 5)
  for (const consumer of consumers) {
    await consumer.waitFor(5)
    expect(consumer.ids().toSorted()).toEqual(idsOf(sent).toSorted())
  }
}

export async function competingShare(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const bothHaveOne = bench.gate()
  const held = async () => {
    await bothHaveOne.opened
    return ack
  }
  const one = { inFlight: 1, parallel: 1 }
  const here = bench.consume(subscription, held, one)
  const there = bench.consume(subscription, held, { ...one, on: await bench.another() })
  const sent = await bench.publish(subscription, 6)
  await waitFor(() => here.seen.length > 0 && there.seen.length > 0, { what: 'both consumers have a message' })
  bothHaveOne.open()
  await bench.waitUntilEmpty(subscription)
  expect([...here.ids(), ...there.ids()].toSorted()).toEqual(idsOf(sent).toSorted())
}

export async function lateSubscriberSeesBacklog(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const sent = await bench.publish(subscription, 5)
  const consumer = bench.consume(subscription, () => ack, { on: await bench.another() })
  await consumer.waitFor(5)
  expect(consumer.ids().toSorted()).toEqual(idsOf(sent).toSorted())
}
