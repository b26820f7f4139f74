import type { Envelope } from '../../kernel/envelope.ts'
import { toError } from '../../kernel/errors.ts'
import { isConnectionError } from '../../engine/database/connection.ts'
import type { Database } from '../../engine/database/database.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import { GroupFailure, settleGroup } from '../../engine/worker/group.ts'
import { writeReceipt } from '../../engine/inbox/store.ts'
import type {
  Consumer,
  ConsumeOptions,
  DeadLetter,
  Delivery,
  HandleInside,
  Settlement,
} from '../../engine/transport.ts'
import { laneControl } from './lane-control.ts'
import { endWithin, startSlots } from './slots.ts'
import type { Row } from './claim.ts'
import { putBack, take, takeAgain } from './claim.ts'
import { bury, isHeldBack, nextDueMs, postpone, unburied } from './settle.ts'

export interface InsideOptions {
  database: Database
  consumer: string
  /** The number it has in the tables. */
  number: () => Promise<number>
  handle: HandleInside
  options: ConsumeOptions
  /** Calls back when there may be something; returns how to stop that. */
  listen: (wake: () => void) => () => void
}

/**
 * Rows are taken, their effects made and the rows gone in one transaction: the row's disappearance is the record that it was
 * done, and a crash at any point leaves all of it or nothing.
 */
export function consumeInside({ database, consumer, number, handle, options, listen }: InsideOptions): Consumer {
  const parallel = Math.min(options.parallel, options.inFlight)
  const limit = Math.min(options.batch, Math.floor(options.inFlight / parallel))
  let consumerId = 0
  const control = laneControl(limit, process.pid)
  const aborter = new AbortController()
  const onError = options.onError ?? (() => {})
  let inFlight = 0

  const slots = startSlots({
    slots: parallel,
    turn,
    nextDueMs: () => nextDueMs(database, consumerId),
    onError,
  })
  const unlisten = listen(slots.wake)

  async function turn(more: () => void): Promise<number> {
    consumerId ||= await number()
    const startedAt = Date.now()
    let taken: Taken[] = []
    let done: Delivery[] = []
    try {
      await database.transaction(
        async (tx) => {
          const rows = await take(tx, control.next(consumerId))
          control.claimed(rows)
          taken = toTaken(rows)
          if (taken.length === 0) return
          if (taken.length >= limit) more()
          inFlight += taken.length
          done = await carryOut(tx, taken)
          if (done.length) void writeReceipt(tx, consumerId, done, startedAt)
        },
        { retries: 0, endsConnection: isStuck },
      )
      if (done.length === taken.length) control.took(taken.map(({ row }) => row))
      else control.forget()
      if (done.length) handle.done?.(done, startedAt)
    } catch (failure) {
      control.forget()
      if (taken.length === 0 || isConnectionError(failure)) throw failure
      await sortOutApart(taken, failure)
    } finally {
      inFlight -= taken.length
    }
    return taken.length
  }

  /** All together; after a failure what can be done, and the others put back or buried, still in the same transaction. */
  async function carryOut(tx: Tx, taken: readonly Taken[]): Promise<Delivery[]> {
    const batch = deliveriesOf(taken)
    // Neither is awaited when all goes well: they leave with the handlers' first statement, and the commit answers for them.
    void tx.query('savepoint batch')
    try {
      await handle.apply(batch, tx)
      return batch
    } catch (failure) {
      if (isStuck(failure) || isConnectionError(failure)) throw failure
      await tx.query('rollback to savepoint batch')
      return await sortOut(tx, taken, failure)
    }
  }

  async function sortOut(tx: Tx, taken: readonly Taken[], failure: unknown): Promise<Delivery[]> {
    const rowOf = rowsOf(taken)
    const done: Delivery[] = []
    const settlements: [Delivery, Settlement][] = []
    const attempt = (part: readonly Delivery[]) => inSavepoint(tx, () => handle.apply(part, tx))
    const settle = (delivery: Delivery, settlement: Settlement) => {
      if (settlement.do === 'ack') done.push(delivery)
      else settlements.push([delivery, settlement])
    }
    await settleGroup({ batch: deliveriesOf(taken), attempt, judge: handle.judge, settle, fatal: isStuck }, failure)
    for (const [delivery, settlement] of settlements) await settleInside(tx, delivery, rowOf.get(delivery)!, settlement)
    return done
  }

  async function settleInside(tx: Tx, delivery: Delivery, row: Row, settlement: Settlement): Promise<void> {
    const { eventId } = delivery.envelope
    if (settlement.do === 'ack') return
    if (settlement.do === 'retry') {
      const { error, blame } = settlement
      const back = { row, eventId, countsAttempt: blame === 'message', error: error?.message ?? null }
      return putBack(tx, consumerId, [{ ...back, afterMs: isHeldBack(settlement) ? null : settlement.afterMs }])
    }
    try {
      await inSavepoint(tx, () => options.deadLetter(letterOf(delivery, settlement), tx))
    } catch (failure) {
      if (isConnectionError(failure)) throw failure
      onError(toError(failure))
      await putBack(tx, consumerId, [{ row, eventId, ...unburied(failure) }])
    }
  }

  /**
   * The transaction itself is lost: a handler was still running at its deadline, or the commit was refused. The rows are back; each
   * part is tried in a transaction of its own.
   */
  async function sortOutApart(taken: readonly Taken[], failure: unknown): Promise<void> {
    const rowOf = rowsOf(taken)
    await settleGroup(
      {
        batch: deliveriesOf(taken),
        attempt: (part) => attemptApart(part, rowOf),
        judge: handle.judge,
        settle: (delivery, settlement) => settleApart(delivery, rowOf.get(delivery)!, settlement),
      },
      failure,
    )
  }

  async function attemptApart(part: readonly Delivery[], rowOf: ReadonlyMap<Delivery, Row>): Promise<void> {
    const byId = new Map(part.map((delivery) => [rowOf.get(delivery)!.id, delivery]))
    const startedAt = Date.now()
    let there: Delivery[] = []
    await database.transaction(
      async (tx) => {
        const rows = await takeAgain(
          tx,
          consumerId,
          part.map((delivery) => rowOf.get(delivery)!),
        )
        // What is missing has been done by another worker meanwhile, or is in its hands.
        there = rows.map((row) => byId.get(row.id)!)
        if (there.length === 0) return
        await handle.apply(there, tx)
        void writeReceipt(tx, consumerId, there, startedAt)
      },
      { retries: 2, endsConnection: isStuck },
    )
    if (there.length) handle.done?.(there, startedAt)
  }

  async function settleApart(delivery: Delivery, row: Row, settlement: Settlement): Promise<void> {
    // Held back behind an earlier event of its key, it is still there as it was.
    if (settlement.do === 'ack' || isHeldBack(settlement)) return
    if (settlement.do === 'retry') {
      const { error, afterMs, blame } = settlement
      await postpone(database, consumerId, [
        { row, afterMs, countsAttempt: blame === 'message', error: error?.message ?? null },
      ])
      return
    }
    await bury(database, consumerId, row, letterOf(delivery, settlement), options)
  }

  function letterOf(delivery: Delivery, { reason, error }: Settlement & { do: 'dead' }): DeadLetter {
    return { consumer, envelope: delivery.envelope, reason, attempts: delivery.attempt, ...(error && { error }) }
  }

  function toTaken(rows: readonly Row[]): Taken[] {
    return rows.map((row) => ({
      row,
      delivery: { envelope: JSON.parse(row.envelope) as Envelope, attempt: row.failures + 1, signal: aborter.signal },
    }))
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
    },
  }
}

interface Taken {
  readonly row: Row
  readonly delivery: Delivery
}

function deliveriesOf(taken: readonly Taken[]): Delivery[] {
  return taken.map(({ delivery }) => delivery)
}

function rowsOf(taken: readonly Taken[]): Map<Delivery, Row> {
  return new Map(taken.map(({ delivery, row }) => [delivery, row]))
}

async function inSavepoint<T>(tx: Tx, work: () => Promise<T>): Promise<T> {
  await tx.query('savepoint part')
  try {
    const result = await work()
    // Fails when a failed statement's error was swallowed.
    await tx.query('release savepoint part')
    return result
  } catch (failure) {
    if (!isConnectionError(failure) && !isStuck(failure)) await tx.query('rollback to savepoint part')
    throw failure
  }
}

function isStuck(failure: unknown): boolean {
  return failure instanceof GroupFailure && failure.timedOut
}
