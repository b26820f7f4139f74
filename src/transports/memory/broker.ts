import type { Capabilities, Topology, TopologyDiff } from '../../engine/transport.ts'
import type { Clock } from '../../kernel/clock.ts'
import { systemClock } from '../../kernel/clock.ts'
import type { Duration } from '../../kernel/duration.ts'
import { milliseconds } from '../../kernel/duration.ts'
import type { Envelope, Message } from '../../kernel/envelope.ts'
import { toMessage } from '../../kernel/envelope.ts'
import { KerpError } from '../../kernel/errors.ts'
import { RecentIds } from './dedup.ts'
import { Queue } from './queue.ts'

/** What the broker is like: by default all that a good one can do; less of it, to see how the engine copes with a poorer one. */
export interface MemoryBrokerOptions {
  clock?: Clock
  ordering?: Capabilities['ordering']
  dedupWindow?: Duration
  refusesUnroutable?: boolean
  /** Whether `stop` and `start` keep what was accepted. The end of the process never does. */
  durable?: boolean
  maxBatch?: number
  maxBytes?: number
}

/** The server's side: several transports may be connected to one, and a test may stop and start it. */
export interface MemoryBroker {
  readonly clock: Clock
  readonly capabilities: Capabilities
  readonly running: boolean
  /** As if it was killed: connections break, publishing fails, settlements do not arrive. Delays and leases run on. */
  stop(): void
  start(): void
  /** Puts bytes into a subscription's queue as they are: what some other program may have sent. */
  inject(subscription: string, message: Message): void
  /** Drops everything, its timers included. */
  close(): void

  ensure(topology: Topology, dryRun: boolean): TopologyDiff
  /** Undefined once it is in every subscriber's queue, or the reason why it is refused. */
  accept(envelope: Envelope, options?: { evenTwice?: boolean }): KerpError | undefined
  queue(subscription: string): Queue
  /** Calls `listener` after every stop and start; the returned function ends that. */
  watch(listener: () => void): () => void
}

export function memoryBroker(options: MemoryBrokerOptions = {}): MemoryBroker {
  const clock = options.clock ?? systemClock
  const capabilities = capabilitiesFrom(options)
  const queues = new Map<string, { queue: Queue; events: Set<string> }>()
  const recent = new RecentIds(clock, capabilities.dedupWindowMs)
  const listeners = new Set<() => void>()
  let running = true

  function ensure({ subscriptions }: Topology, dryRun: boolean): TopologyDiff {
    const created: string[] = []
    const drift: string[] = []
    for (const { name, events } of subscriptions) {
      const there = queues.get(name)?.events ?? new Set()
      const missing = events.filter((event) => !there.has(event))
      created.push(...missing.map((event) => `${event} → ${name}`))
      for (const event of there) if (!events.includes(event)) drift.push(`${event} → ${name} is there and not declared`)
      if (!dryRun) bind(name, missing)
    }
    return { created, drift }
  }

  function bind(name: string, events: readonly string[]): void {
    const there = queues.get(name) ?? { queue: new Queue(clock, capabilities.ordering), events: new Set() }
    for (const event of events) there.events.add(event)
    queues.set(name, there)
  }

  function accept(envelope: Envelope, { evenTwice = false } = {}): KerpError | undefined {
    const message = toMessage(envelope)
    const bytes = bytesOf(message)
    if (bytes > capabilities.maxBytes) return tooLarge(envelope, bytes, capabilities.maxBytes)
    const targets = [...queues.values()].filter(({ events }) => events.has(envelope.eventType))
    if (targets.length === 0 && capabilities.refusesUnroutable) return unroutable(envelope)
    if (recent.has(envelope.eventId) && !evenTwice) return undefined
    recent.add(envelope.eventId)
    for (const { queue } of targets) queue.add(message)
    return undefined
  }

  function queue(subscription: string): Queue {
    const found = queues.get(subscription)
    if (found) return found.queue
    throw new KerpError('SUBSCRIPTION_INVALID', `${subscription} was not declared`, {
      hint: 'call ensure() with it first',
    })
  }

  function stop(): void {
    running = false
    for (const each of queues.values()) each.queue.stop({ keep: capabilities.durable })
    if (!capabilities.durable) recent.clear()
    tell()
  }

  function start(): void {
    running = true
    for (const each of queues.values()) each.queue.start()
    tell()
  }

  function tell(): void {
    for (const listener of listeners) listener()
  }

  return {
    clock,
    capabilities,
    get running() {
      return running
    },
    stop,
    start,
    inject: (subscription, message) => queue(subscription).add(message),
    close() {
      for (const each of queues.values()) each.queue.clear()
    },
    ensure,
    accept,
    queue,
    watch(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}

function capabilitiesFrom(options: MemoryBrokerOptions): Capabilities {
  return {
    ordering: options.ordering ?? 'key',
    delay: 'native',
    dedupWindowMs: milliseconds(options.dedupWindow ?? '2m'),
    countsAttempts: true,
    lease: true,
    durable: options.durable ?? true,
    refusesUnroutable: options.refusesUnroutable ?? true,
    maxBatch: options.maxBatch ?? 1000,
    maxBytes: options.maxBytes ?? 1024 * 1024,
  }
}

function bytesOf({ body, headers }: Message): number {
  let bytes = Buffer.byteLength(body)
  for (const [name, value] of Object.entries(headers)) bytes += Buffer.byteLength(name) + Buffer.byteLength(value)
  return bytes
}

function tooLarge({ eventType }: Envelope, bytes: number, maxBytes: number): KerpError {
  return new KerpError('EVENT_TOO_LARGE', `${eventType} is ${bytes} bytes, at most ${maxBytes} can be sent`, {
    hint: 'keep the large part in a table or a file store and send its id',
  })
}

function unroutable({ eventType }: Envelope): KerpError {
  return new KerpError('EVENT_UNROUTABLE', `nobody is subscribed to ${eventType}`, {
    hint: 'call ensure() with a subscription to it first',
  })
}
