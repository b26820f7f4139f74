import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { waitFor } from '../../src/testing/wait.ts'

export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Process {
  readonly pid: number
  readonly ended: Promise<Ending>
  /** Undefined while it lives. */
  ending(): Ending | undefined
  /** What it has said so far, on both outputs. */
  output(): string
  kill(signal: NodeJS.Signals): Promise<Ending>
  /** Waits until its output matches; fails at once when it ends before. */
  says(words: RegExp, timeoutMs?: number): Promise<RegExpExecArray>
}

const alive = new Set<Process>()
const root = new URL('../../', import.meta.url)
export const cli = new URL('src/cli/main.ts', root).pathname

/** Starts a real process with nothing in its environment but what is given. */
export function startProcess(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Process {
  const child = spawn(process.execPath, [script, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let ending: Ending | undefined
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const ended = new Promise<Ending>((resolve) => {
    child.once('close', (code, signal) => {
      ending = { code, signal }
      alive.delete(started)
      resolve(ending)
    })
  })
  const started: Process = {
    pid: child.pid!,
    ended,
    ending: () => ending,
    output: () => output,
    kill(signal) {
      child.kill(signal)
      return ended
    },
    says: (words, timeoutMs = 20_000) => hear(started, words, timeoutMs),
  }
  alive.add(started)
  return started
}

async function hear(from: Process, words: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
  const heard = await waitFor(
    () => {
      const found = words.exec(from.output())
      if (found) return found
      return from.ending() ? ('ended' as const) : undefined
    },
    { timeoutMs, everyMs: 20, what: () => `${words} in: ${from.output()}` },
  )
  if (heard === 'ended') throw new Error(`it ended before it said ${words}: ${from.output()}`)
  return heard
}

export function startKerp(args: readonly string[], env: NodeJS.ProcessEnv): Process {
  return startProcess(cli, ['start', ...args], env)
}

/** Whatever a failed test has left running. */
export async function endAll(): Promise<void> {
  await Promise.all([...alive].map((each) => each.kill('SIGKILL')))
}

export async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}
