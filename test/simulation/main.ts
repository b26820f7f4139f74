import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { runSeeds } from './crew.ts'
import type { FaultKind } from './plan.ts'
import { faultKinds } from './plan.ts'
import type { Outcome } from './run.ts'
import { simulate } from './run.ts'

const help = `Runs the outbox, the relay, the worker and the inbox on a simulated database, broker, network and clock.

  npm run simulate                            500 runs, each with faults drawn from its seed
  npm run simulate -- --seeds 1000 --from 1   so many, from that seed on
  npm run simulate -- --seed 42 --trace       one run, exactly as it was, with its story

  --seeds N     how many runs (500)
  --from N      the first seed (1)
  --seed N      only this one
  --trace       tell what happens, line by line; with --seed
  --bail        stop at the first run that breaks a promise
  --threads N   at the same time (as many as there are cores, 4 at most)
  --help

The exit code is 0 when every promise was kept in every run, otherwise 1.
`

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '500' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    bail: { type: 'boolean', default: false },
    threads: { type: 'string', default: String(Math.min(4, availableParallelism())) },
    help: { type: 'boolean', default: false },
  },
})

// Whoever reads along may have seen enough.
process.stdout.on('error', () => process.exit())
const print = (line: string) => void process.stdout.write(`${line}\n`)

if (values.help) print(help)
else if (values.seed !== undefined) await runOne(wholeNumber('seed', values.seed))
else await runMany()

async function runOne(seed: number): Promise<void> {
  const startedAt = performance.now()
  const outcome = await simulate(seed, { print: values.trace ? print : undefined })
  report(outcome)
  close([outcome], startedAt)
}

async function runMany(): Promise<void> {
  const seeds = wholeNumber('seeds', values.seeds)
  const startedAt = performance.now()
  const outcomes: Outcome[] = []
  let shownAt = 0
  await runSeeds({
    from: wholeNumber('from', values.from),
    seeds,
    threads: wholeNumber('threads', values.threads),
    onOutcome(outcome) {
      outcomes.push(outcome)
      if (outcome.violation) report(outcome)
      if (process.stdout.isTTY && performance.now() - shownAt > 100) {
        shownAt = performance.now()
        process.stdout.write(`\r\x1b[K${outcomes.length} of ${seeds} runs`)
      }
      return values.bail && outcome.violation ? 'stop' : 'go on'
    },
  })
  close(outcomes, startedAt)
}

function report({ seed, violation }: Outcome): void {
  if (!violation) return
  const { property, detail, atMs } = violation
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
  print(`seed ${seed} breaks a promise at ${(atMs / 1000).toFixed(3)} s: ${property}\n  ${detail}`)
  print(`  repeat it: npm run simulate -- --seed ${seed} --trace`)
}

function close(outcomes: readonly Outcome[], startedAt: number): void {
  const seconds = (performance.now() - startedAt) / 1000
  const sum = (of: (outcome: Outcome) => number) => outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const faults = (kind: FaultKind) => sum((outcome) => outcome.faults[kind])
  const broken = outcomes.filter(({ violation }) => violation)
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
  print(`faults: ${faultKinds.map((kind) => `${kind} ${faults(kind)}`).join(', ')}`)
  print(
    `${outcomes.length} runs in ${seconds.toFixed(1)} s (${(outcomes.length / seconds).toFixed(1)}/s), ` +
      `${sum(({ events }) => events)} events, ${sum(({ effects }) => effects)} effects, ` +
      `${sum(({ dead }) => dead)} dead letters: ${broken.length === 0 ? 'every promise kept' : `${broken.length} broken`}`,
  )
  process.exitCode = broken.length === 0 ? 0 : 1
}

function wholeNumber(name: string, text: string): number {
  if (/^\d+$/.test(text)) return Number(text)
  process.stderr.write(`--${name} takes a whole number, not '${text}'\n`)
  process.exit(2)
}
