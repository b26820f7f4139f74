import type { Consumer, Depth, Subscription, Transport } from '../../engine/transport.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { waitFor } from '../wait.ts'
import type { CollectOptions, Collector, Handler, Way } from './helpers.ts'
import { collect, freshName, newEnvelope, total } from './helpers.ts'
import type { OpenSubject } from './subject.ts'

/** What one test works with. It is cleared away after the test, whatever the test has left running. */
export interface Bench {
  readonly way: Way
  readonly transport: Transport
  readonly leaseMs: number
  /** A second process's connection. */
  another(): Promise<Transport>
  restartBroker(): Promise<void>
  /** Cuts it off, and returns how to let it through again, where that is possible. */
  crash(transport: Transport): Promise<(() => Promise<void>) | undefined>
  /** A fresh subscription to a fresh event, or to the given ones. */
  subscribe(events?: readonly string[]): Promise<Subscription>
  consume(subscription: Subscription, handler: Handler, options?: BenchOptions): Collector
  /** So many events of the subscription's first type, accepted by the broker. */
  publish(subscription: Subscription, count: number, more?: Partial<Envelope>): Promise<Envelope[]>
  publishAll(envelopes: readonly Envelope[]): Promise<void>
  depth(subscription: Subscription): Promise<Depth>
  /** Waits until everything of the subscription has been acknowledged or buried. */
  waitUntilEmpty(subscription: Subscription): Promise<void>
}

export interface BenchOptions extends CollectOptions {
  on?: Transport
  lease?: number
}

export interface OpenBench extends Bench {
  clear(): Promise<void>
}

export function openBench(subject: OpenSubject, way: Way, leaseMs: number): OpenBench {
  const { transport } = subject
  const consumers: Consumer[] = []
  const transports: Transport[] = []

  async function another(): Promise<Transport> {
    const second = await need(subject.another, 'another')()
    transports.push(second)
    return second
  }

  async function crash(victim: Transport): Promise<(() => Promise<void>) | undefined> {
    return (await need(subject.crash, 'crash')(victim)) ?? undefined
  }

  async function subscribe(events: readonly string[] = [freshName('happened')]): Promise<Subscription> {
    const subscription = { name: freshName('consumer'), events }
    await transport.ensure({ subscriptions: [subscription] })
    return subscription
  }

  function consume(subscription: Subscription, handler: Handler, { on = transport, ...options }: BenchOptions = {}) {
    const collector = collect(way, on, subscription, handler, { lease: leaseMs, ...options })
    consumers.push(collector)
    return collector
  }

  async function publish(subscription: Subscription, count: number, more: Partial<Envelope> = {}): Promise<Envelope[]> {
    const type = subscription.events[0]!
    const envelopes = Array.from({ length: count }, (_, n) => newEnvelope(type, { data: { n }, ...more }))
    await publishAll(envelopes)
    return envelopes
  }

  async function publishAll(envelopes: readonly Envelope[]): Promise<void> {
    const refused = (await transport.publish(envelopes)).find((result) => !result.ok)
    if (refused) throw refused.error
  }

  async function waitUntilEmpty(subscription: Subscription): Promise<void> {
    let depth: Depth | undefined
    await waitFor(async () => total((depth = await transport.depth(subscription))) === 0, {
      everyMs: 20,
      what: () => `${subscription.name} is empty, it has ${JSON.stringify(depth)}`,
    })
  }

  async function clear(): Promise<void> {
    await Promise.allSettled(consumers.map((consumer) => consumer.drain(0)))
    await Promise.allSettled(transports.map((each) => each.close()))
  }

  return {
    way,
    transport,
    leaseMs,
    another,
    restartBroker: () => need(subject.restartBroker, 'restartBroker')(),
    crash,
    subscribe,
    consume,
    publish,
    publishAll,
    depth: (subscription) => transport.depth(subscription),
    waitUntilEmpty,
    clear,
  }
}

function need<Hook>(hook: Hook | undefined, name: string): Hook {
  if (hook) return hook
  throw new Error(`the subject has no ${name}(): give it one, or skip this point with the reason`)
}
