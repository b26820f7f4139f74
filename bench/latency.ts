import { everyPair, ratios, sideBySide } from './harness.ts'
import { find, latencyCandidate } from './measure.ts'
import type { Benchmark } from './options.ts'

export const latency: Benchmark = {
  describe:
    'commit to handler start on an idle queue, one job in flight: ours, graphile-worker, pg-boss, BullMQ on Redis',
  async run(context) {
    const samples = context.options.jobs ?? 500
    const found = await find('latency', context)
    const candidates = found.map((one) => latencyCandidate(one, samples, context))
    const rows = await sideBySide(candidates, context.options.pairs, context.say)
    const ours = rows.filter((_, i) => found[i]!.module === 'ours.ts')
    const theirs = rows.filter((row) => !ours.includes(row))
    return {
      rows,
      ratios: ratios(everyPair(ours, theirs)),
      note: [
        `${samples} samples a run, from sending the commit (BullMQ: the add) to the handler's first line;`,
        '"returned" counts from when that call came back. Ratios are of p50: less is better.',
      ].join('\n'),
    }
  },
}
