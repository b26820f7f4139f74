import type { Capabilities, Depth } from '../../engine/transport.ts'
import type { Clock } from '../../kernel/clock.ts'
import type { Message } from '../../kernel/envelope.ts'
import { Fifo } from './fifo.ts'

/** A message handed out. Its token is of this one hand-out: after the lease was lost, nothing can be done with it any more. */
export interface Claim {
  readonly token: number
  readonly message: Message
  readonly attempt: number
}

/** What becomes of a claimed message: gone, tried later, or back in its place as if it had never been handed out. */
export type Change = { do: 'remove' } | { do: 'delay'; ms: number; countsAttempt: boolean } | { do: 'give back' }

/** Whoever takes messages from the queue; asked when there may be some, takes one batch at most, says whether it took any. */
export type Taker = () => boolean

interface Entry {
  readonly message: Message
  readonly acceptedAt: number
  readonly lane: Lane
  failures: number
  state: 'ready' | 'leased' | 'delayed'
}

/**
 * The messages of one key, oldest first. While any of them is out, no other is handed out, and one that waits for its retry
 * holds back all behind it; so the messages that one batch may take are always the ready ones at the front.
 */
interface Lane {
  readonly key: string | null
  readonly entries: Entry[]
  leased: number
  /** The hand-out that took from it last: only that one may go on taking. */
  turn: number
  inLine: boolean
}

interface Lease {
  readonly entry: Entry
  readonly onLost: () => void
  until: number
  /** The holder was told that it is over. Until the broker runs again the message is nobody's. */
  over: boolean
}

/** One subscription's messages inside the broker. Everything here happens at once: no step of it can be seen half done. */
export class Queue {
  readonly #clock: Clock
  readonly #ordering: Capabilities['ordering']
  readonly #entries = new Set<Entry>()
  readonly #lanes = new Map<string, Lane>()
  /** Lanes with a ready message in front. A lane goes to the end of the line after each message, so no key starves others. */
  readonly #line = new Fifo<Lane>()
  readonly #leases = new Map<number, Lease>()
  readonly #delays = new Map<Entry, () => void>()
  readonly #takers: Taker[] = []
  #tokens = 0
  #turns = 0
  #sweepAt = Infinity
  #cancelSweep = () => {}
  #waking = false
  #stopped = false

  constructor(clock: Clock, ordering: Capabilities['ordering']) {
    this.#clock = clock
    this.#ordering = ordering
  }

  add(message: Message): void {
    const lane = this.#laneFor(message.headers['key'] ?? null)
    const entry: Entry = { message, acceptedAt: this.#clock.monotonic(), lane, failures: 0, state: 'ready' }
    lane.entries.push(entry)
    this.#entries.add(entry)
    this.#lineUp(lane)
  }

  /** Hands out what is there, `limit` at most; `onLost` is called for each whose lease ends before it is settled. */
  claim(limit: number, leaseMs: number, onLost: (token: number) => void): Claim[] {
    const claims: Claim[] = []
    const turn = ++this.#turns
    while (claims.length < limit) {
      const lane = this.#line.shift()
      if (!lane) break
      lane.inLine = false
      if (lane.leased > 0 && lane.turn !== turn) continue
      const entry = lane.entries[lane.leased]
      // It may have lost its place since it was lined up; whatever makes its front ready again lines it up again.
      if (entry?.state !== 'ready') continue
      lane.turn = turn
      claims.push(this.#lease(entry, leaseMs, onLost))
      if (lane.entries[lane.leased]?.state === 'ready') this.#toEndOfLine(lane)
    }
    return claims
  }

  /** False when the lease was lost before: then there is nothing to settle. */
  settle(token: number, change: Change): boolean {
    const lease = this.#leases.get(token)
    if (!lease) return false
    this.#leases.delete(token)
    if (this.#leases.size === 0) this.#stopSweeping()
    const { entry } = lease
    if (change.do === 'remove') this.#remove(entry)
    else if (change.do === 'delay') this.#delay(entry, change.ms, change.countsAttempt)
    else entry.state = 'ready'
    this.#release(entry.lane)
    return true
  }

  /** A heartbeat. False when the lease is lost. */
  extend(token: number, leaseMs: number): boolean {
    const lease = this.#leases.get(token)
    if (!lease || lease.over) return false
    lease.until = this.#clock.monotonic() + leaseMs
    return true
  }

  /** A fault: the claimed message is in the queue a second time, right behind itself. */
  duplicate(token: number): void {
    const entry = this.#leases.get(token)?.entry
    if (!entry) return
    const copy: Entry = { ...entry, state: 'ready' }
    entry.lane.entries.splice(entry.lane.entries.indexOf(entry) + 1, 0, copy)
    this.#entries.add(copy)
  }

  attach(taker: Taker): void {
    this.#takers.push(taker)
    this.wake()
  }

  detach(taker: Taker): void {
    const at = this.#takers.indexOf(taker)
    if (at >= 0) this.#takers.splice(at, 1)
  }

  /** Offers what is ready to the takers in turn, once everything that happens in this step has happened: so batches form. */
  wake(): void {
    if (this.#waking) return
    this.#waking = true
    queueMicrotask(() => {
      this.#waking = false
      let refusals = 0
      while (this.#line.length > 0 && refusals < this.#takers.length) {
        const taker = this.#takers.shift()!
        this.#takers.push(taker)
        refusals = taker() ? 0 : refusals + 1
      }
    })
  }

  /** While the broker is down nobody takes back what was leased, but its holder knows when its time is over. */
  stop({ keep }: { keep: boolean }): void {
    this.#stopped = true
    if (!keep) this.clear()
  }

  start(): void {
    this.#stopped = false
    this.#sweep()
    this.wake()
  }

  /** Forgets everything, its timers included. */
  clear(): void {
    for (const lease of this.#leases.values()) if (!lease.over) lease.onLost()
    for (const cancel of this.#delays.values()) cancel()
    // A hand-out under way may still know the lanes: they must be empty, not only forgotten.
    for (const { lane } of this.#entries) lane.entries.length = 0
    for (const all of [this.#leases, this.#delays, this.#entries, this.#lanes]) all.clear()
    while (this.#line.shift()) continue
    this.#stopSweeping()
  }

  depth(): Depth {
    const counts = { ready: 0, leased: 0, delayed: 0 }
    let oldest = Infinity
    for (const { state, acceptedAt } of this.#entries) {
      counts[state]++
      oldest = Math.min(oldest, acceptedAt)
    }
    const oldestAgeMs = oldest === Infinity ? null : this.#clock.monotonic() - oldest
    return { ready: counts.ready, inFlight: counts.leased, delayed: counts.delayed, oldestAgeMs }
  }

  #laneFor(key: string | null): Lane {
    const fresh = (): Lane => ({ key, entries: [], leased: 0, turn: 0, inLine: false })
    if (key === null || this.#ordering === 'none') return fresh()
    const lane = this.#lanes.get(key) ?? fresh()
    this.#lanes.set(key, lane)
    return lane
  }

  #lineUp(lane: Lane): void {
    if (lane.leased > 0 || lane.inLine || lane.entries[0]?.state !== 'ready') return
    this.#toEndOfLine(lane)
    this.wake()
  }

  #toEndOfLine(lane: Lane): void {
    lane.inLine = true
    this.#line.push(lane)
  }

  #lease(entry: Entry, leaseMs: number, onLost: (token: number) => void): Claim {
    const token = ++this.#tokens
    const until = this.#clock.monotonic() + leaseMs
    entry.state = 'leased'
    entry.lane.leased++
    this.#leases.set(token, { entry, until, over: false, onLost: () => onLost(token) })
    this.#sweepBy(until)
    return { token, message: entry.message, attempt: entry.failures + 1 }
  }

  #release(lane: Lane): void {
    lane.leased--
    this.#lineUp(lane)
  }

  #remove(entry: Entry): void {
    const { entries, key } = entry.lane
    entries.splice(entries.indexOf(entry), 1)
    this.#entries.delete(entry)
    if (entries.length === 0 && key !== null && this.#lanes.get(key) === entry.lane) this.#lanes.delete(key)
  }

  #delay(entry: Entry, ms: number, countsAttempt: boolean): void {
    if (countsAttempt) entry.failures++
    entry.state = 'delayed'
    // Never at once: what is retried for ever must leave time for everything else.
    const cancel = this.#clock.after(Math.max(1, ms), () => {
      this.#delays.delete(entry)
      entry.state = 'ready'
      this.#lineUp(entry.lane)
    })
    this.#delays.set(entry, cancel)
  }

  #sweepBy(time: number): void {
    if (this.#sweepAt <= time) return
    this.#cancelSweep()
    this.#sweepAt = time
    // Rounded up: a timer that comes a fraction early would find nothing to do.
    this.#cancelSweep = this.#clock.after(Math.max(1, Math.ceil(time - this.#clock.monotonic())), () => this.#sweep())
  }

  /** A lease that ended counts as an attempt: a message that kills its worker must not come back for ever as a fresh one. */
  #sweep(): void {
    this.#stopSweeping()
    const now = this.#clock.monotonic()
    let next = Infinity
    for (const [token, lease] of this.#leases) {
      if (lease.until > now) {
        next = Math.min(next, lease.until)
        continue
      }
      if (!lease.over) lease.onLost()
      lease.over = true
      if (this.#stopped) continue
      this.#leases.delete(token)
      lease.entry.failures++
      lease.entry.state = 'ready'
      this.#release(lease.entry.lane)
    }
    if (next < Infinity) this.#sweepBy(next)
  }

  #stopSweeping(): void {
    this.#cancelSweep()
    this.#sweepAt = Infinity
  }
}
