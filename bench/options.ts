import type { ChildProcess } from 'node:child_process'
import { parseArgs } from 'node:util'
import type { Row } from './harness.ts'
import type { Servers } from './servers.ts'

export interface Options {
  name: string | undefined
  json: string | undefined
  pairs: number
  jobs: number | undefined
  keys: number
  only: string[]
  all: boolean
}

export interface Context {
  options: Options
  servers: Servers
  /** Running children, to be ended on Ctrl-C. */
  children: Set<ChildProcess>
  /** Aborted on Ctrl-C: nothing new begins. */
  signal: AbortSignal
  /** Progress, on stderr. */
  say(line: string): void
}

export interface Report {
  rows: Row[]
  /** "<ours> / <theirs>" */
  ratios: Record<string, number>
  /** Said below the table: what the figures are. */
  note: string
}

export interface Benchmark {
  describe: string
  run(context: Context): Promise<Report>
}

export const usage = `npm run bench -- <name> [options]

  --json <file>   also write the result as JSON
  --pairs <n>     rounds in which every subject runs once (5)
  --jobs <n>      size of the backlog, samples or transactions of one run
  --keys <n>      over how many keys the jobs are spread (100)
  --only a,b      only subjects whose names contain one of these; ours is our side
  --all           optional subjects too: slow defaults and variants`

export function readOptions(args: string[]): Options & { help: boolean } {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      pairs: { type: 'string', default: '5' },
      jobs: { type: 'string' },
      keys: { type: 'string', default: '100' },
      only: { type: 'string', default: '' },
      all: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  return {
    name: positionals[0],
    json: values.json,
    pairs: count('pairs', values.pairs),
    jobs: values.jobs === undefined ? undefined : count('jobs', values.jobs),
    keys: count('keys', values.keys),
    only: values.only.split(',').filter((part) => part !== ''),
    all: values.all,
    help: values.help,
  }
}

function count(name: string, text: string): number {
  const value = Number(text.replaceAll('_', ''))
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} wants a whole number, got ${text}`)
  return value
}
