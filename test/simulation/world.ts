import type { MemoryBroker } from '../../src/transports/memory/index.ts'
import { memoryBroker } from '../../src/transports/memory/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { Checker } from './checker.ts'
import { SimServer } from './database/server.ts'
import { maxBytes } from './events.ts'
import { Faults } from './faults.ts'
import { Outside } from './outside.ts'
import type { Plan } from './plan.ts'
import { drawPlan } from './plan.ts'
import { Random } from './random.ts'

/** Everything one run is made of. Nothing in it knows another run, the real time or real dice. */
export interface World {
  readonly seed: number
  readonly plan: Plan
  readonly clock: VirtualClock
  readonly dice: Random
  readonly faults: Faults
  readonly server: SimServer
  readonly broker: MemoryBroker
  readonly outside: Outside
  readonly checker: Checker
  /** How often an event has been trouble to a consumer so far. */
  readonly troubles: Map<string, number>
  note(who: string, what: string): void
}

export function createWorld(seed: number, print: ((line: string) => void) | undefined): World {
  const clock = new VirtualClock()
  const dice = new Random(String(seed))
  const plan = drawPlan(dice.fork('plan'))
  const note = print
    ? (who: string, what: string) => print(`${(clock.monotonic() / 1000).toFixed(3).padStart(8)}  ${who}: ${what}`)
    : () => {}
  const server = new SimServer(clock)
  const broker = memoryBroker({ clock, ...plan.broker, maxBytes })
  const checker = new Checker({ server, broker, note })
  const faults = new Faults(clock, dice.fork('faults'), plan, note)
  const outside = new Outside(dice.fork('outside'), checker)
  return { seed, plan, clock, dice, faults, server, broker, outside, checker, troubles: new Map(), note }
}
