import { laneCount } from './claim.ts'
import type { Row, TakeOptions } from './claim.ts'

/** Rows of transactions that were open for long appear below the low marks; after this long everything is looked at again. */
const sweepMs = 1000

/**
 * Decides how a consumer's slots take their next batch: from which lane on, from how many, and from which ids. With plenty in every
 * lane a slot takes from one or two and leaves the others to its neighbours; with little it takes what there is anywhere.
 */
export function laneControl(limit: number, seed: number) {
  let offset = seed % laneCount
  let lanes = laneCount
  let low = noMarks()
  let turn = 0
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
        lanes: Math.min(lanes, atMost),
        offset,
        low,
      }
    },
    /** At once: what a slot holds of the unordered rows its neighbours need not walk over to find it locked. */
    claimed(rows: readonly Row[]): void {
      for (const { id, lane, waited } of rows) {
        if (!waited && lane === laneCount) low[lane] = Math.max(low[lane]!, id)
      }
    },
    /** After the commit: what was ready up to the last taken row of a lane is gone, bar those that commit late. */
    took(rows: readonly Row[]): void {
      lanes =
        rows.length >= limit
          ? Math.max(1, lanes >> 1)
          : rows.length < limit / 2
            ? Math.min(laneCount, lanes << 1)
            : lanes
      for (const { id, lane, waited } of rows) {
        if (!waited && lane < laneCount) low[lane] = Math.max(low[lane]!, id)
      }
    },
    forget(): void {
      low = noMarks()
      sweptAt = performance.now()
    },
  }
}

/** One for each lane, and one for what has no key. */
function noMarks(): number[] {
  return Array.from({ length: laneCount + 1 }, () => 0)
}
