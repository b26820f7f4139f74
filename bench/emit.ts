import { ratios, sideBySide } from './harness.ts'
import { emitCandidate, find } from './measure.ts'
import type { Benchmark } from './options.ts'

export const emit: Benchmark = {
  describe: 'business transactions of one insert with one emit, against the same without, 1 and 16 at a time',
  async run(context) {
    const transactions = context.options.jobs ?? 10_000
    const found = await find('emit', context, ['ours.ts'])
    const variants = found.flatMap((one) =>
      [1, 16].map((concurrency) =>
        [true, false].map((emits) => emitCandidate(one, { emit: emits, concurrency, transactions }, context)),
      ),
    )
    const rows = await sideBySide(variants.flat(), context.options.pairs, context.say)
    return {
      rows,
      ratios: ratios(variants.map((_, i) => [rows[2 * i]!, rows[2 * i + 1]!])),
      note: `${transactions.toLocaleString('en')} transactions a run, after a warm-up.`,
    }
  },
}
