import { ratios, sideBySide } from './harness.ts'
import { drainCandidate, find } from './measure.ts'
import type { Benchmark } from './options.ts'

export const relay: Benchmark = {
  describe: "outbox rows relayed to the transport, against the transport's own windowed publish",
  async run(context) {
    const backlog = { jobs: context.options.jobs ?? 100_000, keys: context.options.keys }
    const found = await find('relay', context, ['ours.ts'])
    const candidates = found.map((one) => drainCandidate('relay', one, backlog, context))
    const rows = await sideBySide(candidates, context.options.pairs, context.say)
    const [first, ...others] = rows
    return {
      rows,
      ratios: first ? ratios(others.map((other) => [first, other])) : {},
      note: `${backlog.jobs.toLocaleString('en')} messages over ${backlog.keys} keys.`,
    }
  },
}
