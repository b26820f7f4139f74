import type { Clock } from '../../src/kernel/clock.ts'

/**
 * One life of a program. Everything that reaches its code from outside (answers of the database, timers, the network) comes
 * through `deliver`: a dead one hears nothing any more, so it stops at the await it is in; a frozen one hears it when it wakes up.
 */
export class SimProcess {
  readonly name: string
  readonly clock: Clock
  #state: 'running' | 'frozen' | 'dead' = 'running'
  #held: (() => void)[] = []
  readonly #atEnd: (() => void)[] = []

  constructor(name: string, world: Clock) {
    this.name = name
    this.clock = {
      now: () => world.now(),
      monotonic: () => world.monotonic(),
      after: (ms, action) => {
        let calledOff = false
        const cancel = world.after(ms, () => this.deliver(() => calledOff || action()))
        return () => {
          calledOff = true
          cancel()
        }
      },
    }
  }

  get alive(): boolean {
    return this.#state !== 'dead'
  }

  get frozen(): boolean {
    return this.#state === 'frozen'
  }

  deliver(action: () => void): void {
    if (this.#state === 'running') action()
    else if (this.#state === 'frozen') this.#held.push(action)
  }

  /** Resolves at once, when it wakes up, or never. */
  awake(): Promise<void> {
    return new Promise((resolve) => this.deliver(resolve))
  }

  freeze(): void {
    if (this.#state === 'running') this.#state = 'frozen'
  }

  thaw(): void {
    if (this.#state !== 'frozen') return
    this.#state = 'running'
    const held = this.#held
    this.#held = []
    for (const action of held) this.deliver(action)
  }

  kill(): void {
    if (this.#state === 'dead') return
    this.#state = 'dead'
    this.#held = []
    for (const listener of this.#atEnd) listener()
  }

  /** What its operating system does for it when it dies. */
  atEnd(listener: () => void): void {
    this.#atEnd.push(listener)
  }
}
