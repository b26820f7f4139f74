import type { Delivery, Settlement } from '../transport.ts'

/** What the machinery tells about its work; metrics, the live line and tests listen. */
export interface Observer {
  /** Events handed to the broker, and how long they had waited since their commit. */
  relayed(count: number, oldestWaitMs: number): void
  relayFailed(count: number, error: Error): void
  handled(consumer: string, outcome: Outcome, count: number): void
  /** One attempt at one message failed, and what becomes of it. */
  attemptFailed(consumer: string, delivery: Delivery, settlement: Settlement): void
  /** A batch that was carried out in one go. */
  batched(consumer: string, size: number, tookMs: number): void
  /** From the emit of the oldest event of a batch until its effect had committed. */
  lagged(consumer: string, lagMs: number): void
  /** Something went wrong that concerns no single message: a lost connection, a failed poll. */
  failed(where: string, error: Error): void
}

/** `duplicate`: it had been done before and was only acknowledged. */
export type Outcome = 'done' | 'duplicate' | 'retried' | 'dead'

export const silentObserver: Observer = {
  relayed() {},
  relayFailed() {},
  handled() {},
  attemptFailed() {},
  batched() {},
  lagged() {},
  failed() {},
}

/** One observer that passes everything on to several. */
export function observers(all: readonly Observer[]): Observer {
  return {
    relayed: (...args) => all.forEach((each) => each.relayed(...args)),
    relayFailed: (...args) => all.forEach((each) => each.relayFailed(...args)),
    handled: (...args) => all.forEach((each) => each.handled(...args)),
    attemptFailed: (...args) => all.forEach((each) => each.attemptFailed(...args)),
    batched: (...args) => all.forEach((each) => each.batched(...args)),
    lagged: (...args) => all.forEach((each) => each.lagged(...args)),
    failed: (...args) => all.forEach((each) => each.failed(...args)),
  }
}
