import type { Clock } from '../../src/kernel/clock.ts'
import type { MemoryFaults } from '../../src/transports/memory/index.ts'
import type { Network, StatementFault } from './database/client.ts'
import type { FaultKind, Plan, StepFault } from './plan.ts'
import { faultKinds } from './plan.ts'
import type { SimProcess } from './process.ts'
import type { Random } from './random.ts'

/** Draws what goes wrong, and counts it. */
export class Faults implements Network {
  readonly clock: Clock
  readonly counts = Object.fromEntries(faultKinds.map((kind) => [kind, 0])) as Record<FaultKind, number>
  readonly #dice: Random
  readonly #plan: Plan
  readonly #note: (who: string, what: string) => void
  #active = true

  constructor(clock: Clock, dice: Random, plan: Plan, note: (who: string, what: string) => void) {
    this.clock = clock
    this.#dice = dice
    this.#plan = plan
    this.#note = note
  }

  /** From here on everything works. */
  cease(): void {
    this.#active = false
  }

  strikes(kind: StepFault, who = 'network'): boolean {
    const probability = this.#plan.probability[kind]
    if (!this.#active || probability === 0 || !this.#dice.chance(probability)) return false
    this.count(kind, who)
    return true
  }

  count(kind: FaultKind, who: string, detail = ''): void {
    this.counts[kind]++
    this.#note(who, `✗ ${kind}${detail}`)
  }

  delayMs(): number {
    if (this.strikes('slow statement')) return this.#dice.between(20, 500)
    return this.#dice.between(0, this.#plan.delayMs)
  }

  noticeMs(): number {
    return this.#dice.between(0, 2000)
  }

  fault({ name }: SimProcess, text: string): StatementFault | undefined {
    const who = `${name}, ${text}`
    // A commit is where it hurts most: nobody knows what became of it.
    const throws = text === 'commit' ? 3 : 1
    for (let time = 0; time < throws; time++) {
      if (this.strikes('crash at an await', who)) return this.#dice.pick(['crash before', 'crash after'])
      if (this.strikes('connection lost', who)) return this.#dice.pick(['lost before', 'lost after'])
    }
    return undefined
  }

  /** For the transport of one process. */
  memory({ name }: SimProcess): MemoryFaults {
    const strikes = (kind: StepFault) => this.strikes(kind, name)
    const delay = (kind: StepFault, maxMs: number) => (strikes(kind) ? { delayMs: this.#dice.between(1, maxMs) } : {})
    return {
      onPublish: () => ({
        ...delay('publish delayed', 200),
        ...(strikes('publish refused')
          ? { lose: 'request' as const }
          : strikes('publish answer lost')
            ? { lose: 'answer' as const }
            : {}),
        duplicate: strikes('published twice'),
      }),
      onDeliver: () => ({
        ...delay('delivery delayed', 300),
        lose: strikes('delivery lost'),
        duplicate: strikes('delivered twice'),
      }),
      onSettle: () => ({ ...delay('settlement delayed', 1500), lose: strikes('settlement lost') }),
    }
  }
}
