import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import { milliseconds } from '../../kernel/duration.ts'
import type { Database } from '../../engine/database/database.ts'
import type { Consumer, ConsumeOptions, Delivery, HandleBatch, Settlement } from '../../engine/transport.ts'
import { tryRead, unreadableLetter } from './batch.ts'
import { laneControl } from './lane-control.ts'
import { endWithin, startSlots } from './slots.ts'
import type { Row } from './claim.ts'
import { lease, nextSuspect } from './claim.ts'
import { bury, extend, giveBack, isHeldBack, nextDueMs, postpone, remove } from './settle.ts'

export interface LeasedOptions {
  database: Database
  consumer: string
  /** The number it has in the tables. */
  number: () => Promise<number>
  handle: HandleBatch
  options: ConsumeOptions
  listen: (wake: () => void) => () => void
}

interface Held {
  readonly row: Row
  readonly delivery: Delivery
  readonly aborter: AbortController
  /** By our own clock, from before the server was asked: past this, somebody else may have it. */
  leasedUntil: number
}

/** How often somebody asks for messages that several processes have died over. */
const suspectsEveryMs = 1000

/** Leased by one statement, though handled one by one. */
const fetchAtOnce = 50

/**
 * For handlers that call the outside, which must not hold a transaction: rows are handed out with a lease, which is extended until
 * they are settled. Every hand-out counts `claims` up, so what a worker says after it lost its lease finds no row.
 */
export function consumeLeased({ database, consumer, number, handle, options, listen }: LeasedOptions): Consumer {
  const leaseMs = milliseconds(options.lease)
  const oneByOne = options.batch === 1
  const control = laneControl(oneByOne ? fetchAtOnce : options.batch, process.pid)
  let consumerId = 0
  const onError = options.onError ?? (() => {})
  const held = new Set<Held>()
  const working = new Set<Promise<void>>()
  let freed = () => {}
  let draining = false
  let suspectInHand: Row | undefined
  let askedForSuspects = 0

  const slots = startSlots({ slots: 1, turn, nextDueMs: () => nextDueMs(database, consumerId), onError })
  const unlisten = listen(slots.wake)
  const heartbeat = setInterval(() => void beat(), Math.max(50, leaseMs / 3))
  let beating = false

  async function turn(): Promise<number> {
    consumerId ||= await number()
    const room = options.inFlight - held.size
    if (room <= 0) {
      await new Promise<void>((resolve) => (freed = resolve))
      return 1
    }
    const limit = Math.min(room, oneByOne ? fetchAtOnce : options.batch)
    const suspect = await suspectInTurn()
    const leasedUntil = performance.now() + leaseMs
    const rows = await database.transaction((tx) => lease(tx, control.next(consumerId, limit), leaseMs, suspect ?? 0), {
      retries: 0,
    })
    control.claimed(rows)
    if (rows.length === 0) return 0
    if (suspect !== undefined) suspectInHand = rows.find(({ id }) => id === suspect)
    const fetched = await readAll(rows, leasedUntil)
    for (const each of fetched) held.add(each)
    if (draining) await handBack(fetched)
    else for (const batch of oneByOne ? byKey(fetched) : [fetched]) track(work(batch))
    return rows.length
  }

  /** Of what several processes have died over, one at a time is tried in each process. */
  async function suspectInTurn(): Promise<number | undefined> {
    const isBusy = suspectInHand !== undefined && [...held].some(({ row }) => row === suspectInHand)
    if (isBusy || performance.now() - askedForSuspects < suspectsEveryMs) return undefined
    const suspect = await nextSuspect(database, consumerId)
    // As long as there are any, they are taken one after the other without a pause.
    askedForSuspects = suspect === undefined ? performance.now() : 0
    return suspect
  }

  /** Anyone may write into the tables: what is no event goes to the dead letters with its text. */
  async function readAll(rows: readonly Row[], leasedUntil: number): Promise<Held[]> {
    const readable: Held[] = []
    for (const row of rows) {
      const envelope = tryRead(row)
      if (envelope instanceof Error)
        await bury(database, consumerId, row, unreadableLetter(consumer, row, envelope), options)
      else readable.push(toHeld(row, envelope, leasedUntil))
    }
    return readable
  }

  function track(work: Promise<void>): void {
    working.add(work)
    void work.finally(() => working.delete(work))
  }

  async function work(batch: readonly Held[]): Promise<void> {
    let settlements: Settlement[]
    try {
      settlements = await handle(batch.map(({ delivery }) => delivery))
    } catch (thrown) {
      const error = toError(thrown)
      settlements = batch.map(() => ({ do: 'retry', afterMs: 1000, blame: 'message', error }))
    }
    try {
      await settleAll(batch, settlements)
    } catch (error) {
      // Not settled, so still leased: without a heartbeat they come back by themselves.
      onError(toError(error))
    } finally {
      for (const each of batch) held.delete(each)
      freed()
    }
  }

  async function settleAll(batch: readonly Held[], settlements: readonly Settlement[]): Promise<void> {
    const done = batch.filter((_, index) => settlements[index]?.do === 'ack')
    if (done.length)
      await remove(
        database,
        consumerId,
        done.map(({ row }) => row),
      )
    for (const [index, each] of batch.entries()) {
      const settlement = settlements[index]
      if (settlement?.do !== 'dead') continue
      const { reason, error } = settlement
      const { envelope, attempt } = each.delivery
      const letter = { consumer, envelope, reason, attempts: attempt, ...(error && { error }) }
      await bury(database, consumerId, each.row, letter, options)
    }
    const returned = batch.filter((_, index) => isHeldBack(settlements[index]))
    if (returned.length)
      await giveBack(
        database,
        consumerId,
        returned.map(({ row }) => row),
      )
    const postponed = batch.flatMap(({ row }, index) => {
      const settlement = settlements[index]
      if (settlement?.do !== 'retry' || isHeldBack(settlement)) return []
      const { afterMs, blame, error } = settlement
      return [{ row, afterMs, countsAttempt: blame === 'message', error: error?.message ?? null }]
    })
    if (postponed.length) await postpone(database, consumerId, postponed)
    if (returned.length || postponed.length) {
      control.forget()
      slots.replan()
    }
  }

  async function beat(): Promise<void> {
    const now = performance.now()
    for (const each of held) if (now > each.leasedUntil) lose(each)
    if (beating) return
    beating = true
    await extendAll().catch(onError)
    beating = false
  }

  async function extendAll(): Promise<void> {
    const mine = [...held].filter(({ aborter }) => !aborter.signal.aborted)
    if (mine.length === 0) return
    const leasedUntil = performance.now() + leaseMs
    const kept = await extend(
      database,
      consumerId,
      mine.map(({ row }) => row),
      leaseMs,
    )
    for (const each of mine) {
      if (kept.has(each.row.id)) each.leasedUntil = leasedUntil
      else if (held.has(each)) lose(each)
    }
  }

  function lose({ aborter, delivery: { envelope } }: Held): void {
    aborter.abort(
      new KerpError('LEASE_LOST', `${envelope.eventType} ${envelope.eventId} may be with another worker now`),
    )
  }

  async function handBack(batch: readonly Held[]): Promise<void> {
    await giveBack(
      database,
      consumerId,
      batch.map(({ row }) => row),
    )
    for (const each of batch) held.delete(each)
  }

  return {
    pause: slots.pause,
    resume: slots.resume,
    get inFlight() {
      return held.size
    },
    async drain(graceMs) {
      draining = true
      unlisten()
      freed()
      const ended = slots.stop().then(() => Promise.all(working))
      await endWithin(graceMs, ended, () => {
        for (const { aborter } of held) aborter.abort(new KerpError('WORKER_STOPPING', 'the worker is stopping'))
      })
      clearInterval(heartbeat)
    },
  }
}

/** Each by itself, so that a slow one keeps nobody waiting; those of one key together, as they have to be in order. */
function byKey(fetched: readonly Held[]): Iterable<Held[]> {
  return Map.groupBy(fetched, ({ row, delivery }) => row.key ?? delivery).values()
}

function toHeld(row: Row, envelope: Envelope, leasedUntil: number): Held {
  const aborter = new AbortController()
  return { row, aborter, leasedUntil, delivery: { envelope, attempt: row.failures + 1, signal: aborter.signal } }
}
