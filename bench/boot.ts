import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sideBySide } from './harness.ts'
import type { Candidate, Measure } from './harness.ts'
import type { Benchmark, Context } from './options.ts'
import { freePort } from './servers.ts'

const root = join(import.meta.dirname, '..')
const patienceMs = 60_000

export const boot: Benchmark = {
  describe:
    'npm start until /readyz answers 200, embedded, in a new and in a used data folder; RSS of the Node process',
  async run(context) {
    const folder = await mkdtemp(join(tmpdir(), 'kerp-boot-'))
    let used = ''
    let round = 0
    const candidates: Candidate[] = [
      {
        subject: 'first start',
        settings: 'new data folder',
        measure: () => startOnce((used = join(folder, String(++round))), context),
      },
      { subject: 'warm start', settings: 'folder of the first start', measure: () => startOnce(used, context) },
    ]
    try {
      const rows = await sideBySide(candidates, context.options.pairs, context.say)
      return { rows, ratios: {}, note: 'p50 is the time to ready, RSS that of the Node process once ready.' }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}

async function startOnce(dataFolder: string, { children }: Context): Promise<Measure> {
  const port = await freePort()
  const startedAt = performance.now()
  const kerp = spawn(process.execPath, ['src/cli/main.ts', 'start'], {
    cwd: root,
    env: { ...process.env, KERP_PORT: String(port), KERP_DATA_DIR: dataFolder },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.add(kerp)
  let output = ''
  for (const stream of [kerp.stdout, kerp.stderr]) {
    stream.on('data', (text: Buffer) => (output = (output + text.toString()).slice(-2_000)))
  }
  try {
    while (!(await ready(port))) {
      if (kerp.exitCode !== null) throw new Error(`kerp ended with ${kerp.exitCode}: ${reason(output)}`)
      if (performance.now() - startedAt > patienceMs)
        throw new Error(`not ready after ${patienceMs} ms: ${reason(output)}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return { p50Ms: performance.now() - startedAt, rssMb: await rssMb(kerp.pid!) }
  } finally {
    await stop(kerp)
    children.delete(kerp)
  }
}

async function ready(port: number): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(1_000) }).catch(
    () => null,
  )
  await answer?.body?.cancel()
  return answer?.status === 200
}

async function rssMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024
}

/** As an operator would: a term signal and time to drain; a process that outstays it is ended. */
async function stop(kerp: ChildProcess): Promise<void> {
  if (kerp.exitCode !== null || kerp.signalCode !== null) return
  const exit = new Promise((resolve) => kerp.once('exit', resolve))
  kerp.kill('SIGTERM')
  const impatience = setTimeout(() => kerp.kill('SIGKILL'), 15_000)
  await exit
  clearTimeout(impatience)
}

/** The line that says why; Node.js ends a stack trace with its version. */
function reason(output: string): string {
  const lines = output.trim().split('\n')
  return lines.findLast((line) => line.includes('Error')) ?? lines.at(-1)!
}
