import { expect } from 'vitest'
import type { Subscription } from '../../engine/transport.ts'
import { waitFor } from '../wait.ts'
import type { Bench } from './bench.ts'
import type { Collector } from './helpers.ts'
import { ack, idsOf, newEnvelope, retry, total } from './helpers.ts'

const attemptsOf = (consumer: Collector): number[] => consumer.seen.map(({ attempt }) => attempt)

export async function ackRemoves(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  await consumeAll(bench, subscription)
  await expectNothingOld(bench, subscription)
}

export async function ackSurvivesRestart(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  await consumeAll(bench, subscription)
  await bench.restartBroker()
  await expectNothingOld(bench, subscription)
}

async function consumeAll(bench: Bench, subscription: Subscription): Promise<void> {
  const consumer = bench.consume(subscription, () => ack, { batch: 4 })
  const sent = await bench.publish(subscription, 10)
  await bench.waitUntilEmpty(subscription)
  expect(consumer.ids().toSorted()).toEqual(idsOf(sent).toSorted())
  await consumer.drain(1000)
}

async function expectNothingOld(bench: Bench, subscription: Subscription): Promise<void> {
  const later = bench.consume(subscription, () => ack)
  const fresh = await waitFor(() => bench.publish(subscription, 1), { everyMs: 20, what: 'an event is accepted' })
  await bench.waitUntilEmpty(subscription)
  expect(later.ids()).toEqual(idsOf(fresh))
}

export async function retryRespectsDelay(bench: Bench): Promise<void> {
  const delayMs = 400
  const subscription = await bench.subscribe()
  const consumer = bench.consume(subscription, () => (consumer.seen.length === 1 ? retry(delayMs) : ack))
  await bench.publish(subscription, 1)
  await consumer.waitFor(2)
  // The broker's clock and ours may differ by their resolution.
  expect(consumer.seen[1]!.at - consumer.seen[0]!.at).toBeGreaterThan(delayMs - 10)
  await bench.waitUntilEmpty(subscription)
}

export async function attemptIncrements(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const consumer = bench.consume(subscription, () => (consumer.seen.length < 4 ? retry(10) : ack))
  await bench.publish(subscription, 1)
  await bench.waitUntilEmpty(subscription)
  expect(attemptsOf(consumer)).toEqual([1, 2, 3, 4])
}

export async function consumerBlameDoesNot(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const answers = [retry(10, 'consumer'), retry(10, 'consumer'), retry(10, 'message'), retry(10, 'consumer'), ack]
  let handed = 0
  const consumer = bench.consume(subscription, () => answers[handed++]!)
  await bench.publish(subscription, 1)
  await bench.waitUntilEmpty(subscription)
  expect(attemptsOf(consumer)).toEqual([1, 1, 1, 2, 2])
}

export async function throwIsRetry(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const consumer = bench.consume(subscription, () => {
    if (consumer.seen.length === 1) throw new Error('thrown by the handler')
    return ack
  })
  await bench.publish(subscription, 1)
  await bench.waitUntilEmpty(subscription)
  expect(consumer.seen).toHaveLength(2)
}

export async function deadLetterTells(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const error = new Error('the invoice has no lines', { cause: new Error('lines: required') })
  const consumer = bench.consume(subscription, () =>
    consumer.seen.length === 1 ? retry(10) : { do: 'dead', reason: 'permanent', error },
  )
  const [sent] = await bench.publish(subscription, 1, { key: 'k', correlationId: 'request-1' })
  await bench.waitUntilEmpty(subscription)
  expect(consumer.letters).toHaveLength(1)
  const [letter] = consumer.letters
  const { attempt: attempts } = consumer.seen[1]!
  expect(letter).toMatchObject({ consumer: subscription.name, envelope: sent, reason: 'permanent', attempts })
  expect(letter!.error?.message).toBe('the invoice has no lines')
  expect(letter!.error?.cause).toMatchObject({ message: 'lines: required' })
}

export async function unwrittenDeadLetterLosesNothing(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  let tries = 0
  const kept: number[] = []
  const consumer = bench.consume(subscription, () => ({ do: 'dead', reason: 'permanent' }), {
    async deadLetter() {
      tries++
      if (bench.way === 'leased') kept.push(total(await bench.depth(subscription)))
      if (tries < 3) throw new Error('the dead letters cannot be written')
    },
  })
  const [sent] = await bench.publish(subscription, 1)
  await waitFor(() => consumer.letters.length > 0, { timeoutMs: 20_000, what: () => `a dead letter, ${tries} tries` })
  await bench.waitUntilEmpty(subscription)
  expect(tries).toBe(3)
  expect(
    kept.every((messages) => messages === 1),
    'until its letter is written, the message is on the broker',
  ).toBe(true)
  expect(consumer.letters).toMatchObject([{ envelope: sent, attempts: 1 }])
  expect(consumer.errors.map(({ message }) => message)).toContain('the dead letters cannot be written')
}

export async function poisonDoesNotStarve(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  let cured = false
  const isPoison = (data: unknown) => (data as { poison?: true }).poison === true
  const handler = bench.consume(subscription, ({ envelope }) => (isPoison(envelope.data) && !cured ? retry(20) : ack), {
    inFlight: 2,
    batch: 2,
  })
  await bench.publish(subscription, 4, { data: { poison: true } })
  const good = await bench.publish(subscription, 10)
  const done = () =>
    new Set(handler.seen.filter(({ settlement }) => settlement === ack).map((one) => one.envelope.eventId))
  await waitFor(() => good.every(({ eventId }) => done().has(eventId)), {
    what: () => `10 good ones done, ${done().size}`,
  })
  cured = true
  await bench.waitUntilEmpty(subscription)
}

export async function orderWithinKey(bench: Bench): Promise<void> {
  const subscription = await bench.subscribe()
  const [type] = subscription.events
  const keys = ['a', 'b', 'c']
  const sent = Array.from({ length: 24 }, (_, n) => newEnvelope(type!, { key: keys[n % 3]!, data: { n } }))
  // Each twice, as a transaction that fails runs its messages once more, one by one.
  const failures = new Map([
    [sent[3]!.eventId, [retry(80), retry(80), retry(10), retry(10)]],
    [sent[7]!.eventId, [retry(50, 'consumer'), retry(50, 'consumer')]],
    [sent[8]!.eventId, [retry(0), retry(0)]],
    [sent[21]!.eventId, [retry(30), retry(30)]],
  ])
  const done: string[] = []
  const handler = ({ envelope }: { envelope: { eventId: string } }) => {
    const failure = failures.get(envelope.eventId)?.shift()
    if (!failure) done.push(envelope.eventId)
    return failure ?? ack
  }
  bench.consume(subscription, handler, { batch: 4 })
  bench.consume(subscription, handler, { batch: 4, on: await bench.another() })
  await bench.publishAll(sent)
  await waitFor(() => new Set(done).size === sent.length, { what: () => `24 events done, ${new Set(done).size}` })
  for (const key of keys) {
    const expected = idsOf(sent.filter((envelope) => envelope.key === key))
    // A set, as a transaction that was rolled back runs its messages once more.
    expect([...new Set(done.filter((id) => expected.includes(id)))]).toEqual(expected)
  }
  await bench.waitUntilEmpty(subscription)
}
