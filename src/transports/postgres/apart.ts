import { writeReceipt } from '../../engine/inbox/store.ts'
import type { Delivery, Settlement } from '../../engine/transport.ts'
import { settleGroup } from '../../engine/worker/group.ts'
import type { InsideParts, Taken } from './batch.ts'
import { deliveriesOf, isStuck, letterOf, rowsOf } from './batch.ts'
import type { Row } from './claim.ts'
import { putBack, takeAgain } from './claim.ts'
import { bury, isHeldBack, postpone } from './settle.ts'

/**
 * For when the transaction itself is lost: a handler was still running at its deadline, or the commit was refused. The rows are back
 * where they were; each part of the batch is tried in a transaction of its own.
 */
export function apart(parts: InsideParts): (taken: readonly Taken[], failure: unknown) => Promise<void> {
  const { database, consumer, handle, options } = parts

  return async (taken, failure) => {
    const rowOf = rowsOf(taken)
    await settleGroup(
      {
        batch: deliveriesOf(taken),
        attempt: (part) => attempt(part, rowOf),
        judge: handle.judge,
        settle: (delivery, settlement) => settle(delivery, rowOf.get(delivery)!, settlement),
      },
      failure,
    )
  }

  /** Returns those that are in somebody else's hands by now, or wait behind one that is. */
  async function attempt(part: readonly Delivery[], rowOf: ReadonlyMap<Delivery, Row>): Promise<Delivery[]> {
    const startedAt = Date.now()
    let ours: Delivery[] = []
    await database.transaction(
      async (tx) => {
        const wanted = part.map((delivery) => rowOf.get(delivery)!)
        const taken = new Map((await takeAgain(tx, parts.consumerId, wanted)).map((row) => [row.id, row]))
        const heldBack = new Set<string>()
        ours = part.filter((delivery) => {
          const { key } = delivery.envelope
          const isOurs = taken.has(rowOf.get(delivery)!.id) && !(key !== null && heldBack.has(key))
          if (!isOurs && key !== null) heldBack.add(key)
          return isOurs
        })
        const kept = new Set(ours)
        const back = part.filter((delivery) => !kept.has(delivery) && taken.has(rowOf.get(delivery)!.id))
        if (back.length)
          await putBack(
            tx,
            parts.consumerId,
            back.map((delivery) => asItWas(delivery, rowOf.get(delivery)!)),
          )
        if (ours.length === 0) return
        await handle.apply(ours, tx)
        void writeReceipt(tx, parts.consumerId, ours, startedAt)
      },
      { retries: 2, endsConnection: isStuck },
    )
    if (ours.length) handle.done?.(ours, startedAt)
    const done = new Set(ours)
    return part.filter((delivery) => !done.has(delivery))
  }

  async function settle(delivery: Delivery, row: Row, settlement: Settlement): Promise<void> {
    // Held back behind an earlier event of its key, it is still there as it was.
    if (settlement.do === 'ack' || isHeldBack(settlement)) return
    if (settlement.do === 'dead')
      return bury(database, parts.consumerId, row, letterOf(consumer, delivery, settlement), options)
    const { error, afterMs, blame } = settlement
    const postponed = { row, afterMs, countsAttempt: blame === 'message', error: error?.message ?? null }
    await postpone(database, parts.consumerId, [postponed])
  }
}

function asItWas(delivery: Delivery, row: Row) {
  return { row, eventId: delivery.envelope.eventId, afterMs: null, countsAttempt: false, error: null }
}
