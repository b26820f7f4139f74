import { KerpError } from '../../kernel/errors.ts'
import { isConnectionError } from '../../engine/database/connection.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import { writeReceipt } from '../../engine/inbox/store.ts'
import type { Consumer, Delivery } from '../../engine/transport.ts'
import { apart } from './apart.ts'
import type { InsideParts, Taken } from './batch.ts'
import { carryOut, isStuck, letterOf, readRows } from './batch.ts'
import type { Row } from './claim.ts'
import { laneCount, lease, take, takeAgain } from './claim.ts'
import { laneControl } from './lane-control.ts'
import type { Presence } from './presence.ts'
import { nextDueMs } from './settle.ts'
import { endWithin, startSlots } from './slots.ts'

export interface InsideOptions extends Omit<InsideParts, 'consumerId' | 'signal' | 'onError'> {
  /** The number it has in the tables. */
  number: () => Promise<number>
  /** Calls back when there may be something; returns how to stop that. */
  listen: (wake: () => void) => () => void
  presence: Presence
}

/** When a process dies over a careful claim, another may try after this long. */
const carefulLeaseMs = 2000
const carefulBatch = 50
/** So often a process may die before a message is given up, however few attempts it has: others may have been the cause. */
const fewestDeaths = 3
/** How often somebody asks for messages that were left behind by a process that died. */
const suspectsEveryMs = 1000

/**
 * Rows are taken, their effects made and the rows gone in one transaction: the row's disappearance is the record that it was
 * done, and a crash at any point leaves all of it or nothing.
 */
export function consumeInside({ number, listen, presence, ...given }: InsideOptions): Consumer {
  const { database, consumer, handle, options } = given
  const parallel = Math.min(options.parallel, options.inFlight)
  const limit = Math.min(options.batch, Math.floor(options.inFlight / parallel))
  const control = laneControl(limit, process.pid)
  const aborter = new AbortController()
  const parts: InsideParts = { ...given, consumerId: 0, signal: aborter.signal, onError: options.onError ?? (() => {}) }
  const sortOutApart = apart(parts)
  const left = presence.enter()
  let inFlight = 0
  let askedForSuspects = 0
  let isCareful = true

  const slots = startSlots({
    slots: parallel,
    turn,
    nextDueMs: () => nextDueMs(database, parts.consumerId),
    onError: parts.onError,
  })
  const unlisten = listen(slots.wake)

  async function turn(more: () => void): Promise<number> {
    parts.consumerId ||= await number()
    if (isCareful) {
      await presence.known()
      isCareful = presence.mustBeCareful()
    }
    const took = isCareful ? await carefulTurn('none', more) : await fullTurn(more)
    // What had been under way when somebody died was at the head; when nothing is left of it, all is as always.
    isCareful &&= took > 0
    if (performance.now() - askedForSuspects < suspectsEveryMs) return took
    const suspects = (await carefulTurn('once', () => {})) || (await carefulTurn('again', () => {}))
    // As long as there are any, some are taken at every turn.
    askedForSuspects = suspects ? 0 : performance.now()
    return took + suspects
  }

  async function fullTurn(more: () => void): Promise<number> {
    const startedAt = Date.now()
    /** Also what turns out to be unreadable, or the loop would take such a batch for the end of the queue. */
    let took = 0
    let taken: readonly Taken[] = []
    let done: readonly Delivery[] = []
    try {
      await database.transaction(
        async (tx) => {
          const rows = await take(tx, control.next(parts.consumerId))
          took = rows.length
          if (took === 0) return
          if (took >= limit) more()
          control.claimed(rows)
          taken = await readRows(parts, tx, rows)
          inFlight += taken.length
          done = await carryOut(parts, tx, taken)
          if (done.length) void writeReceipt(tx, parts.consumerId, done, startedAt)
        },
        { retries: 0, endsConnection: isStuck },
      )
      if (done.length < taken.length) control.forget()
      if (done.length) handle.done?.(done, startedAt)
    } catch (failure) {
      control.forget()
      if (taken.length === 0 || isConnectionError(failure)) throw failure
      await sortOutApart(taken, failure)
    } finally {
      inFlight -= taken.length
    }
    return took
  }

  /**
   * The claim is committed before the handlers run: should one of them kill the process, it is known afterwards which it may have
   * been. Those are tried together once more, and then one by one.
   */
  async function carefulTurn(left: 'none' | 'once' | 'again', more: () => void): Promise<number> {
    const size = left === 'again' ? 1 : Math.min(limit, carefulBatch)
    const options = { ...control.next(parts.consumerId, size), lanes: laneCount }
    const rows = await database.transaction((tx) => lease(tx, options, carefulLeaseMs, left), { retries: 0 })
    if (rows.length === 0) return 0
    if (rows.length >= size) more()
    inFlight += rows.length
    try {
      await carryOutClaimed(rows)
    } finally {
      inFlight -= rows.length
      control.forget()
    }
    return rows.length
  }

  async function carryOutClaimed(rows: readonly Row[]): Promise<void> {
    const startedAt = Date.now()
    let taken: readonly Taken[] = []
    let done: readonly Delivery[] = []
    try {
      await database.transaction(
        async (tx) => {
          taken = await readRows(parts, tx, await takeAgain(tx, parts.consumerId, rows, 'ours'))
          const [first] = taken
          if (!first || (await buriedAsDeadly(tx, rows[0]!, first))) return
          done = await carryOut(parts, tx, taken)
          if (done.length) void writeReceipt(tx, parts.consumerId, done, startedAt)
        },
        { retries: 0, endsConnection: isStuck },
      )
      if (done.length) handle.done?.(done, startedAt)
    } catch (failure) {
      if (taken.length === 0 || isConnectionError(failure)) throw failure
      await sortOutApart(taken, failure)
    }
  }

  /** Processes have died over it as often as it may be tried. */
  async function buriedAsDeadly(tx: Tx, { leftBehind, failures }: Row, { delivery }: Taken): Promise<boolean> {
    if (!leftBehind || failures < fewestDeaths) return false
    const died = new KerpError('HANDLER_CRASHED', `its process died ${failures} times while it was being handled`)
    const verdict = handle.judge({ ...delivery, attempt: failures }, died)
    if (verdict.do !== 'dead') return false
    await options.deadLetter(letterOf(consumer, { ...delivery, attempt: failures }, verdict), tx)
    return true
  }

  return {
    pause: slots.pause,
    resume: slots.resume,
    get inFlight() {
      return inFlight
    },
    async drain(graceMs) {
      unlisten()
      await endWithin(graceMs, slots.stop(), () => aborter.abort())
      await left()
    },
  }
}
