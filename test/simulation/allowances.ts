/**
 * What the engine does not keep in every case, and the verdict therefore leaves out. Each goes on the day the engine keeps it;
 * until then `--strict <name>` shows the case, and `--strict all` makes no allowances.
 */
export const allowances = {
  'slow transactions':
    'the relay reads on behind what it has read: a slow transaction’s event comes to light behind a later one of its key',
  'dead and done': 'a copy of the message that comes after the dead letter is tried like any other, and may succeed',
  outage: 'a database that is away while `perform` looks for kept answers costs the messages an attempt',
  shutdown: 'an outside call that is cut short by a drain costs its message an attempt',
} as const

export type Allowance = keyof typeof allowances

export class Allowances {
  readonly #strict: ReadonlySet<Allowance>

  constructor(strict: readonly Allowance[]) {
    this.#strict = new Set(strict)
  }

  are(allowance: Allowance): boolean {
    return !this.#strict.has(allowance)
  }
}
