import type { Clock } from '../kernel/clock.ts'

interface Timer {
  readonly at: number
  readonly order: number
  readonly action: () => void
}

export interface VirtualClockOptions {
  /** What the wall shows at the beginning, in milliseconds since 1970. */
  startAt?: number
}

/**
 * Time that passes only when told to. Timers run in the order of their times, those of one moment in the order they were set,
 * and whatever a timer sets off by promises is over before the next one runs: the same program does the same every time.
 */
export class VirtualClock implements Clock {
  readonly #timers: Timer[] = []
  #elapsed = 0
  #wallAtZero: number
  #order = 0

  constructor({ startAt = Date.UTC(2026, 0, 1) }: VirtualClockOptions = {}) {
    this.#wallAtZero = startAt
  }

  now(): number {
    return this.#wallAtZero + this.#elapsed
  }

  monotonic(): number {
    return this.#elapsed
  }

  after(ms: number, action: () => void): () => void {
    const timer: Timer = { at: this.#elapsed + Math.max(0, ms || 0), order: this.#order++, action }
    this.#timers.splice(this.#placeOf(timer), 0, timer)
    return () => {
      const place = this.#placeOf(timer)
      if (this.#timers[place] === timer) this.#timers.splice(place, 1)
    }
  }

  /** Somebody sets the wall clock, backwards with a negative number. Durations and timers do not notice. */
  stepWall(ms: number): void {
    this.#wallAtZero += ms
  }

  /** Timers that have not run. */
  get pending(): number {
    return this.#timers.length
  }

  /** Milliseconds until the next timer; undefined when there is none. */
  get nextInMs(): number | undefined {
    const next = this.#timers[0]
    return next && next.at - this.#elapsed
  }

  /** Lets promises finish, then goes to the next timer and runs it, then lets promises finish. False when there was no timer. */
  async step(): Promise<boolean> {
    await settlePromises()
    return this.#runNext(Infinity)
  }

  /** Lets so much time pass, running what is due on the way. */
  async advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms
    await settlePromises()
    while (await this.#runNext(end)) continue
    this.#elapsed = end
  }

  /**
   * Steps until no timer is left. What repeats for ever never gets there, so it gives up after `maxMs` of its own time or
   * `maxSteps` timers, and says by false that there was more.
   */
  async runUntilIdle({ maxMs = 24 * 3_600_000, maxSteps = 1_000_000 } = {}): Promise<boolean> {
    const end = this.#elapsed + maxMs
    await settlePromises()
    for (let steps = 0; steps < maxSteps && (await this.#runNext(end)); steps++) continue
    return this.#timers.length === 0
  }

  /** Lets time pass until `promise` has settled, and hands on its outcome. */
  async run<Result>(promise: Promise<Result>, { maxMs = 24 * 3_600_000 } = {}): Promise<Result> {
    const end = this.#elapsed + maxMs
    let settled = false
    const settle = () => void (settled = true)
    promise.then(settle, settle)
    await settlePromises()
    while (!settled) {
      if (await this.#runNext(end)) continue
      const more = this.#timers.length > 0 ? `${maxMs} ms of virtual time have passed` : 'no timer is left'
      throw new Error(`the promise can no longer settle: ${more}`)
    }
    return promise
  }

  async #runNext(end: number): Promise<boolean> {
    const next = this.#timers[0]
    if (!next || next.at > end) return false
    this.#timers.shift()
    this.#elapsed = Math.max(this.#elapsed, next.at)
    next.action()
    await settlePromises()
    return true
  }

  /** Where a timer is, or belongs, in the order of time. */
  #placeOf(timer: Timer): number {
    let low = 0
    let high = this.#timers.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = this.#timers[middle]!
      if (other.at < timer.at || (other.at === timer.at && other.order < timer.order)) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** Resolves after every promise that can go on has gone on: Node empties that queue before it comes to an immediate. */
export function settlePromises(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
