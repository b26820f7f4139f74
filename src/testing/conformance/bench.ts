import type { Consumer, Depth, Subscription, Transport } from '../../engine/transport.ts'
import { sleep, systemClock } from '../../kernel/clock.ts'
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
  /** A second process's connection, which like every process has declared what is subscribed to by then. */
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
  gate(): Gate
  /** Waits until everything of the subscription has been acknowledged or buried. */
  waitUntilEmpty(subscription: Subscription): Promise<void>
}

export interface BenchOptions extends CollectOptions {
  on?: Transport
  lease?: number
}

/** Something a handler waits for until the test says go, or is over. */
export interface Gate {
  readonly opened: Promise<void>
  open(): void
}

/** A drain that hangs is a finding, but not while clearing away after a test that has failed for another reason. */
const clearMs = 5000

export interface OpenBench extends Bench {
  clear(): Promise<void>
}

export function openBench(subject: OpenSubject, way: Way, leaseMs: number): OpenBench {
  const { transport } = subject
  const subscriptions: Subscription[] = []
  const consumers: Consumer[] = []
  const transports: Transport[] = []
  const gates: Gate[] = []

  async function another(): Promise<Transport> {
    const second = await need(subject.another, 'another')()
    transports.push(second)
    await second.ensure({ subscriptions })
    return second
  }

  async function crash(victim: Transport): Promise<(() => Promise<void>) | undefined> {
    return (await need(subject.crash, 'crash')(victim)) ?? undefined
  }

  async function subscribe(events: readonly string[] = [freshName('happened')]): Promise<Subscription> {
    const subscription = { name: freshName('consumer'), events }
    await transport.ensure({ subscriptions: [subscription] })
    subscriptions.push(subscription)
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

  function gate(): Gate {
    const { promise, resolve } = Promise.withResolvers<void>()
    gates.push({ opened: promise, open: resolve })
    return gates.at(-1)!
  }

  async function clear(): Promise<void> {
    for (const each of gates) each.open()
    await within(clearMs, Promise.allSettled(consumers.map((consumer) => consumer.drain(0))))
    await within(clearMs, Promise.allSettled(transports.map((each) => each.close())))
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
    gate,
    waitUntilEmpty,
    clear,
  }
}

async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  const enough = new AbortController()
  await Promise.race([promise, sleep(systemClock, ms, enough.signal)])
  enough.abort()
}

function need<Hook>(hook: Hook | undefined, name: string): Hook {
  if (hook) return hook
  throw new Error(`the subject has no ${name}(): give it one, or skip this point with the reason`)
}
