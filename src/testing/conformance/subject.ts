import type { Transport } from '../../engine/transport.ts'

/** A transport as the suite needs it, with the ways to hurt its broker that only its author knows. */
export interface ConformanceSubject {
  readonly name: string
  /** Called once. Names of subscriptions and events are fresh in every test, so the server may be shared with others. */
  open(): Promise<OpenSubject>
  /** The lease the suite consumes with: short, as some points wait until it has run out. */
  readonly leaseMs: number
  /** Points that do not apply, each with the reason; it is shown in the test's title. */
  readonly skips?: Readonly<Record<number, string>>
  /** The transport has `consumeInside`: the points that concern consuming are run on that way, too. */
  readonly inside?: boolean
  /** Points that do not apply to `consumeInside`, besides `skips`. */
  readonly skipsInside?: Readonly<Record<number, string>>
}

export interface OpenSubject {
  readonly transport: Transport
  /** A connection of its own to the same broker, as a second process would have. The suite closes it. */
  another?(): Promise<Transport>
  /** Kills the broker with SIGKILL and starts it again with what it had on disk. */
  restartBroker?(): Promise<void>
  /**
   * Cuts a transport from `another()` off: neither a heartbeat nor a settlement of it reaches the broker any more, as if its
   * process had died or frozen. The returned function, where there is one, lets it through again.
   */
  crash?(transport: Transport): Promise<(() => Promise<void>) | void>
  close(): Promise<void>
}
