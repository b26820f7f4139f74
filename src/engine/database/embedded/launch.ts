import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { Account } from './account.ts'
import { asUser, neutralCwd, plainEnv } from './run.ts'

/** A running watchdog and, below it, PostgreSQL. */
export interface Launched {
  /** Of the server; undefined when it did not come that far. */
  readonly pid: Promise<number | undefined>
  readonly exited: Promise<Exit>
  hasExited(): boolean
  /** From now on it does not keep this process alive: who forgets to stop simply ends, and the server with it. */
  letGo(): void
  /** Asks for a fast shutdown; `exited` tells when it is done. */
  end(): void
}

export interface Exit {
  readonly code: number
  /** Why not even the watchdog could be started. */
  readonly error?: Error
}

export interface LaunchOptions {
  readonly native: string
  readonly dataDir: string
  readonly log: string
  /** Each `name=value`. */
  readonly settings: readonly string[]
  readonly account: Account | undefined
}

/**
 * Holds PostgreSQL's hand: it shuts the server down when its standard input ends, which happens however we die, and ends
 * itself when the server does, with its code. It ignores the signals that are meant for us: Ctrl-C and a service manager
 * send them to everybody, and the database must outlive those who still finish their work with it.
 *
 * The interrupt is repeated because a server in its first milliseconds does not hear it yet. A shell rather than Node, as
 * it takes 1 MB of memory, not 40.
 */
const shellWatchdog = `
trap '' INT TERM HUP QUIT PIPE
exec 3<&0 4>&1 0</dev/null 1>&2
"$@" 3<&- 4>&- &
server=$!
(
  exec 4>&-
  while read -r _ <&3; do :; done
  while kill -INT "$server" 2>/dev/null; do sleep 1; done
) &
watcher=$!
exec 3<&-
echo "$server" >&4
exec 4>&-
wait "$server"
code=$?
kill -KILL "$watcher" 2>/dev/null
exit "$code"
`

/**
 * The same for Windows, which has no such signals: pg_ctl starts and stops the server. It also takes the administrator's
 * rights off it, with which PostgreSQL refuses to run.
 */
const nodeWatchdog = `
const { spawnSync } = require('node:child_process')
const { readFileSync } = require('node:fs')
const [pgCtl, dataDir, log, options] = process.argv.slice(1)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGBREAK']) try { process.on(signal, () => {}) } catch {}
const control = (...args) => spawnSync(pgCtl, [...args, '-D', dataDir], { stdio: 'ignore', windowsHide: true }).status
if (control('start', '-w', '-t', '600', '-l', log, '-o', options) !== 0) process.exit(1)
const pid = parseInt(readFileSync(dataDir + '/postmaster.pid', 'utf8'), 10)
process.stdout.on('error', () => {})
process.stdout.write(pid + '\\n')
process.stdin.resume()
process.stdin.on('error', () => {})
process.stdin.on('close', () => process.exit(control('stop', '-m', 'fast', '-w', '-t', '600')))
setInterval(() => { try { process.kill(pid, 0) } catch { process.exit(1) } }, 500)
`

export function launch(options: LaunchOptions, windows = process.platform === 'win32'): Launched {
  const child = windows ? startOnWindows(options) : startOnPosix(options)
  const streams = [child.stdin, child.stdout] as (Socket | null)[]
  // The other end is gone, which `exited` tells as well.
  for (const stream of streams) stream?.on('error', () => undefined)
  let hasExited = false
  const exited = new Promise<Exit>((resolve) => {
    const done = (exit: Exit) => {
      hasExited = true
      resolve(exit)
    }
    child.once('exit', (code) => done({ code: code ?? -1 }))
    child.once('error', (error) => done({ code: -1, error }))
  })
  return {
    pid: readPid(child, exited),
    exited,
    hasExited: () => hasExited,
    letGo() {
      child.unref()
      for (const stream of streams) stream?.unref()
    },
    end() {
      child.ref() // now somebody waits for it
      child.stdin?.end()
    },
  }
}

function startOnPosix({ native, dataDir, log, settings, account }: LaunchOptions): ChildProcess {
  const server = [join(native, 'bin', 'postgres'), '-D', dataDir, ...settings.flatMap((setting) => ['-c', setting])]
  const output = openSync(log, 'a', 0o600)
  try {
    return spawn('/bin/sh', ['-c', shellWatchdog, 'kerp-postgres-watchdog', ...server], {
      ...asUser(account),
      detached: true, // a session of its own, out of reach of the terminal's Ctrl-C
      stdio: ['pipe', 'pipe', output],
      env: plainEnv,
      cwd: neutralCwd,
    })
  } finally {
    closeSync(output)
  }
}

function startOnWindows({ native, dataDir, log, settings, account }: LaunchOptions): ChildProcess {
  const options = settings.map((setting) => `-c "${setting}"`).join(' ')
  return spawn(process.execPath, ['-e', nodeWatchdog, join(native, 'bin', 'pg_ctl'), dataDir, log, options], {
    ...asUser(account),
    detached: true,
    windowsHide: true,
    stdio: ['pipe', 'pipe', 'ignore'],
    env: plainEnv,
    cwd: neutralCwd,
  })
}

function readPid(child: ChildProcess, exited: Promise<Exit>): Promise<number | undefined> {
  return new Promise((resolve) => {
    let text = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('\n')) resolve(Number.parseInt(text, 10))
    })
    void exited.then(() => resolve(undefined))
  })
}
