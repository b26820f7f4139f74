import { everyPair, ratios, sideBySide } from './harness.ts'
import { drainCandidate, find } from './measure.ts'
import type { Benchmark, Context, Report } from './options.ts'

export const drainPostgres: Benchmark = {
  describe: 'a backlog with a no-op handler, until the store is empty: ours, graphile-worker, pg-boss, BullMQ on Redis',
  run: (context) => compareDrains('drain', context, 100_000),
}

export const effects: Benchmark = {
  describe: 'exactly once + one insert each: ours, hand-written loops, graphile-worker and BullMQ with the same dedup',
  run: (context) => compareDrains('effects', context, 50_000),
}

/** Ours against every peer, the same backlog for all. */
async function compareDrains(kind: 'drain' | 'effects', context: Context, defaultJobs: number): Promise<Report> {
  const { options, say } = context
  const backlog = { jobs: options.jobs ?? defaultJobs, keys: options.keys }
  const found = await find(kind, context)
  const candidates = found.map((one) => drainCandidate(kind, one, backlog, context))
  const rows = await sideBySide(candidates, options.pairs, say)
  const isOurs = (_: unknown, i: number) => found[i]!.module === 'ours.ts'
  const ours = rows.filter(isOurs)
  const theirs = rows.filter((row) => !ours.includes(row))
  return {
    rows,
    ratios: ratios(everyPair(ours, theirs)),
    note: `${backlog.jobs.toLocaleString('en')} jobs over ${backlog.keys} keys; drained means the store is empty.`,
  }
}
