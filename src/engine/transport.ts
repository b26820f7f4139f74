import type { Duration } from '../kernel/duration.ts'
import type { Envelope } from '../kernel/envelope.ts'
import type { Tx } from './database/transaction.ts'

/**
 * What every broker fulfils. Delivery is at least once; the worker makes the effect exactly once. A transport owns leases and
 * their heartbeats, the messages it has fetched ahead included; whoever handles a batch says what becomes of each message by a
 * value, so a double acknowledgement cannot be written.
 */
export interface Transport {
  readonly name: string
  /** Probed, not assumed: they may depend on the server's version. */
  readonly capabilities: Capabilities
  /** Creates what is missing. What is there and differs is reported and left alone. */
  ensure(topology: Topology, options?: { dryRun?: boolean }): Promise<TopologyDiff>
  /** Resolves after the broker has durably accepted or refused each one. */
  publish(batch: readonly Envelope[], signal?: AbortSignal): Promise<PublishResult[]>
  /** Hands out messages in batches until drained. A handler that throws counts as `retry` for the whole batch. */
  consume(subscription: Subscription, handle: HandleBatch, options: ConsumeOptions): Consumer
  /**
   * Only where the queue is in the same database as the effects: taking a batch, its effects and its acknowledgement are one
   * transaction, so there is no lease to lose and no inbox to ask.
   */
  consumeInside?(subscription: Subscription, handle: HandleInside, options: ConsumeOptions): Consumer
  depth(subscription: Subscription): Promise<Depth>
  close(): Promise<void>
}

export interface Capabilities {
  /** 'key': later events of a key wait for an earlier one, through its retries too. */
  readonly ordering: 'key' | 'none'
  /** A retry's delay is kept by the broker, whatever happens to us. */
  readonly delay: 'native' | 'none'
  /** Publishing the same event twice within this time has the effect of once; 0: not at all. */
  readonly dedupWindowMs: number
  /** Attempts are counted by the broker, across restarts of workers. */
  readonly countsAttempts: boolean
  /** A message handed out is somebody else's after a time without a heartbeat. */
  readonly lease: boolean
  /** What was accepted survives a restart of the broker. */
  readonly durable: boolean
  /** An event nobody subscribes to is refused instead of swallowed. */
  readonly refusesUnroutable: boolean
  /** Of a published batch all or nothing is accepted, so several events of one key may be in it. */
  readonly publishesAtomically?: boolean
  readonly maxBatch: number
  /** Of one message, body and headers together. */
  readonly maxBytes: number
}

export interface Subscription {
  /** The consumer's name, and its queue's: every consumer gets each event once. */
  readonly name: string
  readonly events: readonly string[]
}

export interface Topology {
  readonly subscriptions: readonly Subscription[]
}

export interface TopologyDiff {
  readonly created: readonly string[]
  /** There, but not as declared: a sentence each. */
  readonly drift: readonly string[]
}

export type PublishResult = { ok: true } | { ok: false; error: Error; retryable: boolean }

export interface Delivery {
  readonly envelope: Envelope
  /** 1 for the first. Failures that were the consumer's own (a closed circuit, a shutdown) do not count. */
  readonly attempt: number
  /** Aborted when somebody else may be working on it, or at the end of the grace time. */
  readonly signal: AbortSignal
}

export type Settlement =
  | { do: 'ack' }
  | { do: 'retry'; afterMs: number; blame: 'message' | 'consumer'; error?: Error }
  | { do: 'dead'; reason: string; error?: Error }

export type HandleBatch = (batch: readonly Delivery[]) => Promise<Settlement[]>

/** For `consumeInside`: the handler's part of one transaction, and the verdict on a message that failed on its own. */
export interface HandleInside {
  apply(batch: readonly Delivery[], tx: Tx): Promise<void>
  judge(delivery: Delivery, error: Error): Settlement
  /** The transaction of these has committed. */
  done?(batch: readonly Delivery[], startedAt: number): void
}

export interface ConsumeOptions {
  /** Messages handed out and not yet settled, at most. */
  inFlight: number
  /** Messages of one batch, at most. */
  batch: number
  lease: Duration
  /** Transactions side by side, for `consumeInside`. */
  parallel: number
  /** Takes what must not be tried again. While it fails, the message is not acknowledged. */
  deadLetter: DeadLetterSink
  onError?: (error: Error) => void
}

export interface DeadLetter {
  readonly consumer: string
  /** Undefined when the message could not be read: then only its bytes are known. */
  readonly envelope?: Envelope
  readonly raw?: string
  readonly reason: string
  readonly error?: Error
  readonly attempts: number
}

export type DeadLetterSink = (letter: DeadLetter, tx?: Tx) => Promise<void>

export interface Consumer {
  pause(): void
  resume(): void
  readonly inFlight: number
  /** Stops intake, gives back at once what was not started, waits for the rest; past the grace time aborts its signals. */
  drain(graceMs: number): Promise<void>
}

export interface Depth {
  readonly ready: number
  readonly inFlight: number
  readonly delayed: number
  /** Of the oldest that is not done; null when there is none. */
  readonly oldestAgeMs: number | null
}
