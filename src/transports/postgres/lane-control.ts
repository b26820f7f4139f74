import { laneCount } from './store.ts'
import type { Row, TakeOptions } from './store.ts'

/** Rows of transactions that were open for long appear below the low marks; after this long everything is looked at again. */
const sweepMs = 1000

/**
 * Decides how one slot takes its next batch: from which lane on, from how many, and from which ids. With plenty in every lane it
 * takes from one or two and leaves the others to its neighbours; with little it takes what there is anywhere.
 */
export function laneControl(consumer: number, limit: number, seed: number) {
  let offset = seed % laneCount
  let lanes = laneCount
  let low = new Array<number>(laneCount).fill(0)
  let sweptAt = performance.now()

  return {
    next(): TakeOptions {
      offset = (offset + 1) % laneCount
      if (performance.now() - sweptAt > sweepMs) this.forget()
      return { consumer, limit, lanes, offset, low }
    },
    /** After the commit: what was ready up to the last taken row of a lane is gone, bar those that commit late. */
    took(rows: readonly Row[]): void {
      lanes = rows.length >= limit ? Math.max(1, lanes >> 1) : rows.length < limit / 2 ? Math.min(laneCount, lanes << 1) : lanes
      for (const { id, lane, waited } of rows) if (!waited) low[lane] = Math.max(low[lane]!, id)
    },
    forget(): void {
      low = new Array<number>(laneCount).fill(0)
      sweptAt = performance.now()
    },
  }
}
