import type { Envelope } from '../../kernel/envelope.ts'
import { readEnvelope } from '../../kernel/envelope.ts'
import { toError } from '../../kernel/errors.ts'
import { isConnectionError } from '../../engine/database/connection.ts'
import type { Database } from '../../engine/database/database.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import type { ConsumeOptions, DeadLetter, Delivery, HandleInside, Settlement } from '../../engine/transport.ts'
import { GroupFailure, settleGroup } from '../../engine/worker/group.ts'
import type { Row } from './claim.ts'
import { putBack } from './claim.ts'
import { isHeldBack, unburied } from './settle.ts'

/** What a consumer works with that takes its rows in the transaction of their effects. */
export interface InsideParts {
  database: Database
  consumer: string
  consumerId: number
  handle: HandleInside
  options: ConsumeOptions
  /** Aborted at the end of the grace time. */
  signal: AbortSignal
  onError: (error: Error) => void
}

export interface Taken {
  readonly row: Row
  readonly delivery: Delivery
}

export function deliveriesOf(taken: readonly Taken[]): Delivery[] {
  return taken.map(({ delivery }) => delivery)
}

export function rowsOf(taken: readonly Taken[]): Map<Delivery, Row> {
  return new Map(taken.map(({ delivery, row }) => [delivery, row]))
}

/** Anyone may write into the tables: what is no event goes to the dead letters with its text, in the same transaction. */
export async function readRows(parts: InsideParts, tx: Tx, rows: readonly Row[]): Promise<Taken[]> {
  const taken: Taken[] = []
  for (const row of rows) {
    const envelope = tryRead(row)
    if (envelope instanceof Error) await buryUnreadable(parts, tx, row, envelope)
    else taken.push({ row, delivery: { envelope, attempt: row.failures + 1, signal: parts.signal } })
  }
  return taken
}

export function tryRead({ envelope }: Row): Envelope | Error {
  try {
    return readEnvelope(envelope)
  } catch (thrown) {
    return toError(thrown)
  }
}

export function unreadableLetter(consumer: string, row: Row, error: Error): DeadLetter {
  return { consumer, raw: row.envelope, reason: 'MESSAGE_UNREADABLE', error, attempts: row.failures + 1 }
}

async function buryUnreadable({ consumer, options }: InsideParts, tx: Tx, row: Row, error: Error): Promise<void> {
  await options.deadLetter(unreadableLetter(consumer, row, error), tx)
}

/** All together; after a failure what can be done, and the others put back or buried, still in the same transaction. */
export async function carryOut(parts: InsideParts, tx: Tx, taken: readonly Taken[]): Promise<Delivery[]> {
  const batch = deliveriesOf(taken)
  // Not awaited when all goes well: it leaves with the handlers' first statement, and the commit answers for it.
  void tx.query('savepoint batch')
  try {
    await parts.handle.apply(batch, tx)
    return batch
  } catch (failure) {
    if (isStuck(failure) || isConnectionError(failure)) throw failure
    await tx.query('rollback to savepoint batch')
    return await sortOut(parts, tx, taken, failure)
  }
}

async function sortOut(parts: InsideParts, tx: Tx, taken: readonly Taken[], failure: unknown): Promise<Delivery[]> {
  const { handle } = parts
  const rowOf = rowsOf(taken)
  const done: Delivery[] = []
  const settlements: [Delivery, Settlement][] = []
  const attempt = (part: readonly Delivery[]) => inSavepoint(tx, () => handle.apply(part, tx))
  const settle = (delivery: Delivery, settlement: Settlement) => {
    if (settlement.do === 'ack') done.push(delivery)
    else settlements.push([delivery, settlement])
  }
  await settleGroup({ batch: deliveriesOf(taken), attempt, judge: handle.judge, settle, fatal: isStuck }, failure)
  for (const [delivery, settlement] of settlements)
    await settleInside(parts, tx, delivery, rowOf.get(delivery)!, settlement)
  return done
}

async function settleInside(
  { consumer, consumerId, options, onError }: InsideParts,
  tx: Tx,
  delivery: Delivery,
  row: Row,
  settlement: Settlement,
): Promise<void> {
  const { eventId } = delivery.envelope
  if (settlement.do === 'ack') return
  if (settlement.do === 'retry') {
    const { error, blame } = settlement
    const back = { row, eventId, countsAttempt: blame === 'message', error: error?.message ?? null }
    return putBack(tx, consumerId, [{ ...back, afterMs: isHeldBack(settlement) ? null : settlement.afterMs }])
  }
  try {
    await inSavepoint(tx, () => options.deadLetter(letterOf(consumer, delivery, settlement), tx))
  } catch (failure) {
    if (isConnectionError(failure)) throw failure
    onError(toError(failure))
    await putBack(tx, consumerId, [{ row, eventId, ...unburied(failure) }])
  }
}

export function letterOf(
  consumer: string,
  delivery: Delivery,
  { reason, error }: Settlement & { do: 'dead' },
): DeadLetter {
  return { consumer, envelope: delivery.envelope, reason, attempts: delivery.attempt, ...(error && { error }) }
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

/** A handler was still running at its deadline, perhaps in the middle of a statement: nothing more can be sent. */
export function isStuck(failure: unknown): boolean {
  return failure instanceof GroupFailure && failure.timedOut
}
