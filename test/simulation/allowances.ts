import type { PublishResult } from '../../src/engine/transport.ts'
import type { Envelope } from '../../src/kernel/envelope.ts'
import type { SimProcess } from './process.ts'

/**
 * What the engine does not keep in every case, and the verdict therefore leaves out. Each goes on the day the engine keeps it;
 * until then `--strict <name>` shows the case, and `--strict all` makes no allowances.
 */
export const allowances = {
  'slow transactions':
    'the relay reads on behind what it has read: a slow transaction’s event comes to light behind a later one of its key',
  overtaking: 'when the time is over for which a refused event holds back its key, later ones may go ahead of it',
  'dead and done': 'a copy of the message that comes after the dead letter is tried like any other, and may succeed',
  'missing answer': 'of two copies in one process, the first takes the answer away, also when its commit has failed',
  outage: 'a database that is away while `perform` looks for kept answers costs the messages an attempt',
  shutdown: 'an outside call that is cut short by a drain costs its message an attempt',
} as const

export type Allowance = keyof typeof allowances

/** The relay holds a refused event's key back for this long at first, by the clock. */
const holdMs = 100

export class Allowances {
  readonly #strict: ReadonlySet<Allowance>
  readonly #refused = new Map<string, Map<string, { step: number; atMs: number }>>()
  /** Events whose turn others have taken. */
  readonly overtaken = new Set<string>()

  constructor(strict: readonly Allowance[]) {
    this.#strict = new Set(strict)
  }

  are(allowance: Allowance): boolean {
    return !this.#strict.has(allowance)
  }

  publishing({ name }: SimProcess, batch: readonly Envelope[], nowMs: number): void {
    if (!this.are('overtaking')) return
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
