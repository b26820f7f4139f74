import { laneCount } from './claim.ts'
import type { Row, TakeOptions } from './claim.ts'

/** Rows of transactions that were open for long appear below the low mark; after this long everything is looked at again. */
const sweepMs = 1000

/**
 * Decides how a consumer's slots take their next batch: from which lane on, from how many, and from which id. With plenty in every
 * lane a slot takes from one or two and leaves the others to its neighbours; with little it takes what there is anywhere.
 */
export function laneControl(limit: number, seed: number) {
  let offset = seed % laneCount
  let lanes = laneCount
  let low = 0
  let turn = 0
  let lastHadNoKey = false
  let sweptAt = performance.now()

  return {
    next(consumer: number, room = limit): TakeOptions {
      turn++
      offset = (offset + 1) % laneCount
      if (performance.now() - sweptAt > sweepMs) this.forget()
      const atMost = Math.min(limit, room)
      return {
        consumer,
        most: limit,
        limit: atMost,
        keyedLimit: turn % 4 ? atMost : Math.ceil(atMost / 2),
        // Now and then everywhere, or a stream of the ones would starve the others.
        unorderedFirst: lastHadNoKey && turn % 4 > 0,
        lanes: Math.min(lanes, atMost),
        offset,
        low,
      }
    },
    /** At once: what a slot holds of the rows without a key its neighbours need not walk over to find it locked. */
    claimed(rows: readonly Row[]): void {
      if (rows.length >= limit) lanes = Math.max(1, lanes >> 1)
      else if (rows.length < limit / 2) lanes = Math.min(laneCount, lanes << 1)
      if (rows.length) lastHadNoKey = rows.at(-1)!.lane === laneCount
      for (const { id, lane, waited } of rows) if (!waited && lane === laneCount) low = Math.max(low, id)
    },
    /** Something was given back. */
    forget(): void {
      low = 0
      sweptAt = performance.now()
    },
  }
}
