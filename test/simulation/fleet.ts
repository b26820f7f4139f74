import type { Work } from './api.ts'
import { runApiProgram } from './api.ts'
import { SimProcess } from './process.ts'
import type { Running } from './programs.ts'
import { runRelayProgram, runWorkerProgram } from './programs.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

interface Member {
  readonly name: string
  readonly run: (process: SimProcess) => Running
  life: number
  process: SimProcess
  running: Running
  stopping: boolean
}

/** All programs of a run. One that has died is started again after a while, as a supervisor would. */
export class Fleet {
  readonly #world: World
  readonly #dice: Random
  readonly #members: Member[] = []
  readonly #works: Work[] = []
  #healthy = false

  constructor(world: World) {
    const { api, relay, worker } = world.plan.processes
    this.#world = world
    this.#dice = world.dice.fork('fleet')
    for (let at = 1; at <= api; at++) {
      const work = { left: world.plan.transactionsPerClient * world.plan.clientsPerApi }
      this.#works.push(work)
      this.#add(`api-${at}`, (process) => runApiProgram(world, process, work))
    }
    for (let at = 1; at <= relay; at++) this.#add(`relay-${at}`, (process) => runRelayProgram(world, process))
    for (let at = 1; at <= worker; at++) this.#add(`worker-${at}`, (process) => runWorkerProgram(world, process))
  }

  /** Whether the API programs have nothing left to do. */
  get workIsDone(): boolean {
    return this.#works.every(({ left }) => left === 0)
  }

  crashOne(): string {
    const { process } = this.#pick()
    process.kill()
    return process.name
  }

  freezeOne(): string {
    const { process, running } = this.#pick()
    const forMs = this.#dice.chance(0.3) ? this.#dice.between(3000, 18_000) : this.#dice.between(50, 3000)
    process.freeze()
    running.transport?.disconnect()
    this.#world.clock.after(forMs, () => wake({ process, running }))
    return `${process.name} for ${forMs} ms`
  }

  cutOffOne(): string {
    const { process, running } = this.#pick()
    running.transport?.disconnect()
    const forMs = this.#dice.between(100, 5000)
    this.#world.clock.after(forMs, () => process.frozen || running.transport?.reconnect())
    return `${process.name} for ${forMs} ms`
  }

  restartOne(): string {
    const member = this.#pick()
    const { process, running } = member
    if (member.stopping || process.frozen) return 'not now'
    member.stopping = true
    void running.stop().then(() => process.kill())
    return process.name
  }

  /** Everybody up and awake, and none dies any more. */
  heal(): void {
    this.#healthy = true
    for (const { process, running } of this.#members) wake({ process, running })
  }

  #pick(): Member {
    return this.#dice.pick(this.#members.filter(({ process }) => process.alive))
  }

  #add(name: string, run: Member['run']): void {
    const process = new SimProcess(`${name}.1`, this.#world.clock)
    const member: Member = { name, run, life: 1, process, running: run(process), stopping: false }
    this.#members.push(member)
    this.#reviveAtEnd(member)
  }

  #reviveAtEnd(member: Member): void {
    member.process.atEnd(() => {
      const afterMs = this.#healthy ? 100 : this.#dice.between(50, 3000)
      this.#world.note(member.process.name, `gone, back in ${afterMs} ms`)
      this.#world.clock.after(afterMs, () => this.#revive(member))
    })
  }

  #revive(member: Member): void {
    member.life++
    member.process = new SimProcess(`${member.name}.${member.life}`, this.#world.clock)
    member.stopping = false
    member.running = member.run(member.process)
    this.#reviveAtEnd(member)
  }
}

function wake({ process, running }: Pick<Member, 'process' | 'running'>): void {
  if (!process.alive) return
  running.transport?.reconnect()
  process.thaw()
}
