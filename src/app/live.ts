import { silentObserver } from '../engine/telemetry/observer.ts'
import type { Observer } from '../engine/telemetry/observer.ts'
import type { Clock } from '../kernel/clock.ts'
import { sleep } from '../kernel/clock.ts'

export interface Pulse {
  readonly perSecond: number
  /** Of the events done since the last one; null when none was. */
  readonly lagMs: number | null
  readonly backlog: number | null
  readonly done: number
  readonly retried: number
  readonly dead: number
}

/** Follows what the process does, for one line that a person reads. */
export function createPulse(clock: Clock) {
  const totals = { done: 0, retried: 0, dead: 0 }
  let lags: number[] = []
  let last = { at: clock.monotonic(), done: 0 }

  const observer: Observer = {
    ...silentObserver,
    handled(_consumer, outcome, count) {
      if (outcome !== 'duplicate') totals[outcome] += count
    },
    lagged(_consumer, lagMs) {
      if (lags.length < 10_000) lags.push(lagMs)
    },
  }

  function take(backlog: number | null): Pulse {
    const at = clock.monotonic()
    const perSecond = ((totals.done - last.done) * 1000) / Math.max(1, at - last.at)
    const lagMs = lags.length ? lags.sort((a, b) => a - b)[Math.floor(lags.length / 2)]! : null
    lags = []
    last = { at, done: totals.done }
    return { perSecond, lagMs, backlog, ...totals }
  }
  return { observer, take }
}

export interface LiveOptions {
  take(backlog: number | null): Pulse
  /** Asks the database, so less often than the line is written. */
  readBacklog(): Promise<number>
  show(pulse: Pulse): void
  everyMs: number
  backlogEveryMs: number
  clock: Clock
}

/** Shows the pulse at a steady beat until stopped. */
export function startLive(options: LiveOptions): { stop(): Promise<void> } {
  const { take, readBacklog, show, everyMs, backlogEveryMs, clock } = options
  const over = new AbortController()
  let backlog: number | null = null

  async function followBacklog(): Promise<void> {
    while (!over.signal.aborted) {
      backlog = await readBacklog().catch(() => null)
      await sleep(clock, backlogEveryMs, over.signal)
    }
  }
  async function beat(): Promise<void> {
    // What was before the first beat would make its number wrong.
    take(null)
    while (!over.signal.aborted) {
      await sleep(clock, everyMs, over.signal)
      if (!over.signal.aborted) show(take(backlog))
    }
  }
  const running = [followBacklog(), beat()]
  return {
    async stop() {
      over.abort()
      // A question that the database does not answer must not hold up the end.
      await Promise.race([Promise.all(running), sleep(clock, 500)])
    },
  }
}

export function toLine({ perSecond, lagMs, backlog, done, retried, dead }: Pulse): string {
  const parts = [
    `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} events/s`,
    `lag ${lagMs === null ? '–' : lagMs < 10 ? `${lagMs.toFixed(1)} ms` : `${Math.round(lagMs)} ms`}`,
    `backlog ${backlog ?? '?'}`,
    `done ${done}`,
    `retried ${retried}`,
    `dead ${dead}`,
  ]
  return `  ${parts.join('   ')}`
}
