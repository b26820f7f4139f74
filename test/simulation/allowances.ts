import type { PublishResult } from '../../src/engine/transport.ts'
import type { Envelope } from '../../src/kernel/envelope.ts'
import type { SimProcess } from './process.ts'

/** The relay holds a refused event's key back for this long at first, by the clock. */
const holdMs = 100

/**
 * What the engine does not keep in every case, and the verdict therefore leaves out. Each is one member here, so it goes in one
 * piece on the day the engine keeps it. A strict run makes no allowances.
 */
export class Allowances {
  readonly strict: boolean
  readonly #refused = new Map<string, Map<string, { step: number; atMs: number }>>()
  /** Events whose turn others have taken. */
  readonly overtaken = new Set<string>()

  constructor(strict: boolean) {
    this.strict = strict
  }

  /** The relay reads on behind what it has read; a slow transaction's event comes to light behind a later one of its key. */
  get wholeKeysAreRead(): boolean {
    return !this.strict
  }

  /** A copy of the message that comes after the dead letter is tried like any other, and may succeed. */
  get deadMayBeDone(): boolean {
    return !this.strict
  }

  /** Of two copies in one process, the first takes the answer away with it, also when its commit has failed. */
  get answerMayBeMissing(): boolean {
    return !this.strict
  }

  /** While the database is away, `perform` cannot look for kept answers, and that counts as a failure of the message. */
  get outageMayCostAttempts(): boolean {
    return !this.strict
  }

  /** A call that is cut short by a shutdown counts as a failure of the message. */
  get shutdownMayCostAttempts(): boolean {
    return !this.strict
  }

  /** Once the time a key is held back is over, its later events may go ahead of the refused one. */
  publishing({ name }: SimProcess, batch: readonly Envelope[], nowMs: number): void {
    if (this.strict) return
    for (const envelope of batch) {
      for (const [eventId, { step, atMs }] of this.#refused.get(`${name} ${envelope.key}`) ?? []) {
        if (step < stepOf(envelope) && nowMs - atMs >= holdMs) this.overtaken.add(eventId)
      }
    }
  }

  published({ name }: SimProcess, batch: readonly Envelope[], results: readonly PublishResult[], nowMs: number): void {
    batch.forEach((envelope, at) => {
      const lane = `${name} ${envelope.key}`
      const refused = this.#refused.get(lane) ?? new Map<string, { step: number; atMs: number }>()
      this.#refused.set(lane, refused)
      if (results[at]!.ok) refused.delete(envelope.eventId)
      else refused.set(envelope.eventId, { step: stepOf(envelope), atMs: nowMs })
    })
  }
}

function stepOf({ data }: Envelope): number {
  return (data as { step: number }).step
}
