import { expect } from 'vitest'
import type { PublishResult } from '../../engine/transport.ts'
import { isKerpError } from '../../kernel/errors.ts'
import type { Bench } from './bench.ts'
import { ack, freshName, idsOf, newEnvelope } from './helpers.ts'

export async function roundTrip(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const [type] = subscription.events
  const sent = newEnvelope(type!, {
    data: {
      text: '사원 "등록" \\ \n\t 😀',
      empty: '',
      none: null,
      list: [1, -2.5, true, [{}]],
      large: 'x'.repeat(20_000),
    },
    version: 3,
    key: '사원-1/ü',
    companyId: '회사 1',
    correlationId: 'first-cause',
    causationId: 'last-cause',
    source: 'conformance',
  })
  const consumer = bench.consume(subscription, () => ack)
  await bench.publishAll([sent])
  const [seen] = await consumer.waitFor(1)
  expect(seen!.envelope).toEqual(sent)
  expect(seen!.attempt).toBe(1)
}

export async function traceparentKept(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  const consumer = bench.consume(subscription, () => ack)
  const [traced] = await bench.publish(subscription, 1, { traceparent })
  const [untraced] = await bench.publish(subscription, 1)
  await consumer.waitFor(2)
  const seen = new Map(consumer.seen.map(({ envelope }) => [envelope.eventId, envelope]))
  expect(seen.get(traced!.eventId)!.traceparent).toBe(traceparent)
  expect(seen.get(untraced!.eventId)).not.toHaveProperty('traceparent')
}

export async function failurePerEntry(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const type = subscription.events[0]!
  const good = [newEnvelope(type), newEnvelope(type), newEnvelope(type)]
  const bad = bench.transport.capabilities.refusesUnroutable ? newEnvelope(freshName('unheard')) : oversize(bench, type)
  const results = await bench.transport.publish([good[0]!, bad, good[1]!, bad, good[2]!])
  expect(results.map(({ ok }) => ok)).toEqual([true, false, true, false, true])
  const consumer = bench.consume(subscription, () => ack)
  await consumer.waitFor(3)
  expect(consumer.ids().toSorted()).toEqual(idsOf(good).toSorted())
}

export async function oversizeRefused(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const type = subscription.events[0]!
  const neighbours = [newEnvelope(type), newEnvelope(type)]
  const results = await bench.transport.publish([neighbours[0]!, oversize(bench, type), neighbours[1]!])
  expect(results.map(({ ok }) => ok)).toEqual([true, false, true])
  expect(refusal(results[1])).toMatchObject({ code: 'EVENT_TOO_LARGE', retryable: false })
  const consumer = bench.consume(subscription, () => ack)
  await consumer.waitFor(2)
  expect(consumer.ids().toSorted()).toEqual(idsOf(neighbours).toSorted())
}

export async function unroutableSurfaces(bench: Bench): Promise<void> {
  const [result] = await bench.transport.publish([newEnvelope(freshName('unheard'))])
  expect(refusal(result)).toMatchObject({ code: 'EVENT_UNROUTABLE' })
}

export async function durableBeforeResolved(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const sent = await bench.publish(subscription, 20)
  // Not a moment later: what publish() has answered for is there, for others and for good.
  if (bench.transport.capabilities.durable) await bench.restartBroker()
  else expect((await (await bench.another()).depth(subscription)).ready).toBe(20)
  const consumer = bench.consume(subscription, () => ack)
  await consumer.waitFor(20)
  expect(new Set(consumer.ids())).toEqual(new Set(idsOf(sent)))
}

export async function dedupWithinWindow(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const consumer = bench.consume(subscription, () => ack)
  const [event] = await bench.publish(subscription, 1)
  await bench.publishAll([event!])
  await bench.publishAll([event!, event!])
  const [last] = await bench.publish(subscription, 1)
  await bench.waitUntilEmpty(subscription)
  expect(consumer.ids().toSorted()).toEqual([event!.eventId, last!.eventId].toSorted())
}

function oversize({ transport }: Bench, type: string) {
  return newEnvelope(type, { data: { text: 'x'.repeat(transport.capabilities.maxBytes) } })
}

function refusal(result: PublishResult | undefined): { code: string; retryable: boolean } | undefined {
  if (!result || result.ok) return undefined
  return { code: isKerpError(result.error) ? result.error.code : result.error.name, retryable: result.retryable }
}
