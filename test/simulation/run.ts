import { messageOf } from '../../src/kernel/errors.ts'
import type { Violation } from './checker.ts'
import { consumersOf } from './consumers.ts'
import { Fleet } from './fleet.ts'
import type { FaultKind, TimedFault } from './plan.ts'
import { timedFaults } from './plan.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'
import { createWorld } from './world.ts'

export interface Outcome {
  readonly seed: number
  readonly violation?: Violation
  readonly events: number
  readonly effects: number
  readonly dead: number
  readonly faults: Readonly<Record<FaultKind, number>>
}

export interface RunOptions {
  /** Gets every line of the story. */
  print?: ((line: string) => void) | undefined
}

/** Without faults, everything must be done within this time. */
const quietWithinMs = 10 * 60_000
/** After everything seems done, something that was on its way may still arrive. */
const lingerMs = 3000
/** The checker looks on all the time; whether it is over is asked only so often. */
const glanceMs = 20

/** One run: work under faults, then peace until all is done, then the verdict. The same seed is the same run, to the last step. */
export async function simulate(seed: number, { print }: RunOptions = {}): Promise<Outcome> {
  const world = createWorld(seed, print)
  const onRejection = (thrown: unknown) => world.checker.fail('no promise is left without its error', messageOf(thrown))
  process.on('unhandledRejection', onRejection)
  try {
    await live(world)
  } finally {
    process.off('unhandledRejection', onRejection)
    world.broker.close()
  }
  const { checker, server, faults } = world
  return {
    seed,
    ...(checker.violation === undefined ? {} : { violation: checker.violation }),
    events: server.table('events').size,
    effects: checker.effects,
    dead: server.table('dead').size,
    faults: faults.counts,
  }
}

async function live(world: World): Promise<void> {
  const { clock, plan, broker, checker, faults, server } = world
  broker.ensure({ subscriptions: subscriptions() }, false)
  const fleet = new Fleet(world)
  for (const kind of timedFaults) brew(world, fleet, kind)
  await passUntil(world, () => clock.monotonic() >= plan.faultsForMs)

  world.note('weather', 'clears up')
  faults.cease()
  server.comeBack()
  if (!broker.running) broker.start()
  fleet.heal()

  const giveUpAt = clock.monotonic() + quietWithinMs
  let quietSince = Infinity
  await passUntil(world, () => {
    const now = clock.monotonic()
    if (!fleet.workIsDone || checker.unfinished() !== '') quietSince = Infinity
    else quietSince = Math.min(quietSince, now)
    return now - quietSince > lingerMs || now > giveUpAt
  })
  const unfinished = checker.unfinished()
  if (unfinished) checker.fail('everything comes to an end', `after ${quietWithinMs} ms without faults: ${unfinished}`)
  else checker.conclude()
}

async function passUntil({ clock, checker }: World, isOver: () => boolean): Promise<void> {
  while (!checker.violation && !isOver()) await clock.advance(glanceMs)
}

function subscriptions(): { name: string; events: string[] }[] {
  const consumers = [...new Set(Object.values(consumersOf).flat())]
  const eventsOf = (name: string) => Object.keys(consumersOf).filter((event) => consumersOf[event]!.includes(name))
  return consumers.map((name) => ({ name, events: eventsOf(name) }))
}

/** Lets a fault come over the run again and again, if its plan knows that fault. */
function brew(world: World, fleet: Fleet, kind: TimedFault): void {
  const { clock, plan, faults } = world
  const everyMs = plan.everyMs[kind]
  if (everyMs === undefined) return
  const dice = world.dice.fork(kind)
  const next = () =>
    clock.after(dice.between(1, 2 * everyMs), () => {
      if (clock.monotonic() >= plan.faultsForMs) return
      faults.count(kind, 'weather', `: ${befall[kind](world, fleet, dice)}`)
      next()
    })
  next()
}

const befall: Record<TimedFault, (world: World, fleet: Fleet, dice: Random) => string> = {
  crash: (_world, fleet) => fleet.crashOne(),
  freeze: (_world, fleet) => fleet.freezeOne(),
  'graceful restart': (_world, fleet) => fleet.restartOne(),
  'network cut': (_world, fleet) => fleet.cutOffOne(),
  'database away'({ server, clock }, _fleet, dice) {
    const forMs = dice.between(50, 4000)
    server.goAway()
    clock.after(forMs, () => server.comeBack())
    return `for ${forMs} ms`
  },
  'broker restart'({ broker, clock }, _fleet, dice) {
    const forMs = dice.between(50, 4000)
    broker.stop()
    clock.after(forMs, () => broker.running || broker.start())
    return `for ${forMs} ms`
  },
  'clock stepped back'({ clock }, _fleet, dice) {
    const byMs = dice.between(10, 10_000)
    clock.stepWall(-byMs)
    return `by ${byMs} ms`
  },
}
