import type { Envelope } from '../../kernel/envelope.ts'
import { isConnectionError } from '../../engine/database/connection.ts'
import type { Database } from '../../engine/database/database.ts'
import { GroupFailure, settleGroup } from '../../engine/worker/group.ts'
import { writeReceipt } from '../../engine/inbox/store.ts'
import type { Consumer, ConsumeOptions, Delivery, HandleInside, Settlement } from '../../engine/transport.ts'
import { laneControl } from './lane-control.ts'
import { startSlots } from './slots.ts'
import type { Row } from './store.ts'
import { nextDueMs, postpone, remove, take, takeAgain } from './store.ts'

export interface InsideOptions {
  database: Database
  consumerId: number
  consumer: string
  handle: HandleInside
  options: ConsumeOptions
  /** Calls back when there may be something; returns how to stop that. */
  listen: (wake: () => void) => () => void
}

/**
 * Rows are taken, their effects made and the rows gone in one transaction: the row's disappearance is the record that it was
 * done, and a crash at any point leaves all of it or nothing.
 */
export function consumeInside({ database, consumerId, consumer, handle, options, listen }: InsideOptions): Consumer {
  const limit = Math.max(1, Math.min(options.batch, options.inFlight))
  const controls = Array.from({ length: options.parallel }, (_, slot) => laneControl(consumerId, limit, slot * 7 + process.pid))
  const aborter = new AbortController()
  const onError = options.onError ?? (() => {})
  let inFlight = 0

  const slots = startSlots({
    slots: options.parallel,
    turn,
    nextDueMs: () => nextDueMs(database, consumerId),
    onError,
  })
  const unlisten = listen(slots.wake)

  async function turn(slot: number): Promise<{ took: number; full: boolean }> {
    const control = controls[slot]!
    let taken: Taken[] = []
    const startedAt = Date.now()
    try {
      await database.transaction(
        async (tx) => {
          const rows = await take(tx, control.next())
          if (rows.length === 0) return
          taken = toTaken(rows)
          inFlight += taken.length
          await handle.apply(deliveriesOf(taken), tx)
          void writeReceipt(tx, consumerId, deliveriesOf(taken), startedAt)
        },
        { retries: 0, endsConnection: isStuck },
      )
      control.took(taken.map(({ row }) => row))
      if (taken.length) handle.done?.(deliveriesOf(taken), startedAt)
    } catch (failure) {
      control.forget()
      if (taken.length === 0 || isConnectionError(failure)) throw failure
      await sortOut(taken, failure)
    } finally {
      inFlight -= taken.length
    }
    return { took: taken.length, full: taken.length >= limit }
  }

  /** The rows are back where they were; find out which of them cannot be done, and do the others. */
  async function sortOut(taken: readonly Taken[], failure: unknown): Promise<void> {
    const rowOf = new Map(taken.map(({ delivery, row }) => [delivery, row]))
    await settleGroup(
      {
        batch: deliveriesOf(taken),
        attempt: (part) => attemptAgain(part, rowOf),
        judge: handle.judge,
        settle: (delivery, settlement) => settle(delivery, rowOf.get(delivery)!, settlement),
      },
      failure,
    )
  }

  async function attemptAgain(part: readonly Delivery[], rowOf: ReadonlyMap<Delivery, Row>): Promise<void> {
    const byId = new Map(part.map((delivery) => [rowOf.get(delivery)!.id, delivery]))
    const startedAt = Date.now()
    let there: Delivery[] = []
    await database.transaction(
      async (tx) => {
        const rows = await takeAgain(tx, consumerId, part.map((delivery) => rowOf.get(delivery)!))
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

  async function settle(delivery: Delivery, row: Row, settlement: Settlement): Promise<void> {
    if (settlement.do === 'ack') return
    if (settlement.do === 'dead') return bury(delivery, row, settlement)
    const { error, afterMs, blame } = settlement
    // Held back behind an earlier event of its key, it is still there as it was; the key's own wait keeps it.
    if (error === undefined && afterMs === 0) return
    await postpone(database, consumerId, [{ row, afterMs, countsAttempt: blame === 'message', error: error?.message ?? null }])
  }

  async function bury(delivery: Delivery, row: Row, { reason, error }: Settlement & { do: 'dead' }): Promise<void> {
    const letter = { consumer, envelope: delivery.envelope, reason, attempts: delivery.attempt, ...(error && { error }) }
    try {
      await database.transaction(async (tx) => {
        await remove(tx, consumerId, [row])
        await options.deadLetter(letter, tx)
      })
    } catch (failure) {
      onError(failure as Error)
      await postpone(database, consumerId, [{ row, afterMs: 5000, countsAttempt: false, error: `its dead letter could not be written: ${String(failure)}` }])
    }
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
      const timer = setTimeout(() => aborter.abort(), graceMs)
      await slots.stop()
      clearTimeout(timer)
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

function isStuck(failure: unknown): boolean {
  return failure instanceof GroupFailure && failure.timedOut
}
