import { writeFileSync } from 'node:fs'
import { boot } from './boot.ts'
import { drainPostgres, effects } from './drain-postgres.ts'
import { emit } from './emit.ts'
import { table } from './harness.ts'
import { latency } from './latency.ts'
import { readOptions, usage } from './options.ts'
import type { Benchmark, Context, Options, Report } from './options.ts'
import { installPeers, peers } from './peers/install.ts'
import { relay } from './relay.ts'
import { openServers } from './servers.ts'

const benchmarks: Record<string, Benchmark> = { 'drain-postgres': drainPostgres, effects, emit, latency, relay, boot }

const options = readOptions(process.argv.slice(2))
const benchmark = benchmarks[options.name ?? '']

if (options.help || !options.name) {
  console.log(help())
} else if (!benchmark) {
  console.error(`no benchmark ${options.name}\n\n${help()}`)
  process.exitCode = 1
} else {
  installPeers(say)
  await measure(options.name, benchmark, options)
}

function help(): string {
  const lines = Object.entries(benchmarks).map(([name, { describe }]) => `  ${name.padEnd(15)} ${describe}`)
  return `${usage}\n\n${lines.join('\n')}`
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

async function measure(name: string, { run }: Benchmark, given: Options): Promise<void> {
  const servers = await openServers()
  const stop = new AbortController()
  const context: Context = { options: given, servers, children: new Set(), signal: stop.signal, say }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void interrupted(context, stop))
  try {
    const report = await run(context)
    const versions = { node: process.version, ...(await servers.versions()), ...peers }
    console.log(show(report))
    if (given.json) {
      const result = { name, date: new Date().toISOString(), versions, rows: report.rows, ratios: report.ratios }
      writeFileSync(given.json, `${JSON.stringify(result, null, 2)}\n`)
    }
    if (report.rows.some((row) => row.error)) process.exitCode = 1
  } finally {
    await servers.stop()
  }
}

function show({ rows, ratios, note }: Report): string {
  const lines = Object.entries(ratios).map(([pair, ratio]) => `${pair}: ${ratio}`)
  return ['', table(rows), '', note, ...lines].join('\n')
}

/** The servers belong to this run and go with it. */
async function interrupted({ children, servers }: Context, stop: AbortController): Promise<void> {
  stop.abort()
  for (const child of children) child.kill('SIGTERM')
  await servers.stop()
  process.exit(130)
}
