import { randomBytes } from 'node:crypto'
import { link, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { run } from './run.ts'

/** What postmaster.pid says: PostgreSQL's lock on its files, and its notice board. */
export interface Lock {
  readonly pid: number
  /** NaN, as the pid, until the server got that far. */
  readonly port: number
  readonly status: 'starting' | 'ready' | 'stopping'
  readonly text: string
}

const unfinishedForMs = 5_000

export async function readLock(dataDir: string): Promise<Lock | undefined> {
  const file = join(dataDir, 'postmaster.pid')
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error
  })
  if (text === undefined) return undefined
  const lines = text.split('\n').map((line) => line.trim())
  // A server in single-user mode writes its pid with a minus.
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10))
  if (Number.isNaN(pid) && (await isOld(file))) {
    // Emptied by a power cut. PostgreSQL would not dare to remove it.
    await removeStaleLock(dataDir, text)
    return undefined
  }
  const status = lines[7] === 'ready' || lines[7] === 'stopping' ? lines[7] : 'starting'
  return { pid, port: Number.parseInt(lines[3] ?? '', 10), status, text }
}

async function isOld(file: string): Promise<boolean> {
  return stat(file).then(
    ({ mtimeMs }) => Date.now() - mtimeMs > unfinishedForMs,
    () => false,
  )
}

/**
 * Removes the lock, but only the one that was judged: between the look and this, another process may have started a server
 * with a lock of its own. That one is put back within a millisecond; a server looks for its lock once a minute.
 */
export async function removeStaleLock(dataDir: string, text: string): Promise<void> {
  const file = join(dataDir, 'postmaster.pid')
  const aside = join(dataDir, `postmaster.stale-${randomBytes(4).toString('hex')}`)
  try {
    await rename(file, aside)
  } catch {
    return // somebody else removed it
  }
  if ((await readFile(aside, 'utf8')) !== text) await link(aside, file).catch(() => undefined)
  await rm(aside, { force: true })
}

export function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** As `isAlive`, but a process that died and was not yet waited for is dead: in containers that can last for ever. */
export async function isRunning(pid: number): Promise<boolean> {
  if (!isAlive(pid)) return false
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return !/\) [ZX] /.test(status)
}

/**
 * Whether that process is a PostgreSQL server on these files. Pids are used again, in a restarted container almost
 * certainly, so being alive says nothing. When it cannot be found out, the answer is yes: two servers on the same files
 * would destroy them.
 */
export async function isServerOf(pid: number, dataDir: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  if (process.platform === 'linux') return isServerOnLinux(pid, dataDir)
  if (process.platform === 'win32') {
    const { code, output } = await run('tasklist', ['/FI', `PID eq ${pid}`, '/FO', 'CSV', '/NH'], { timeoutMs: 10_000 })
    return code !== 0 || /^"postgres/i.test(output)
  }
  const { code, output } = await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)], { timeoutMs: 10_000 })
  if (code !== 0) return isAlive(pid)
  return /postgres["']?\s+-D\s/.test(output) && output.includes(dataDir)
}

async function isServerOnLinux(pid: number, dataDir: string): Promise<boolean> {
  const proc = `/proc/${pid}`
  const command = await readFile(`${proc}/cmdline`, 'utf8').catch((error: NodeJS.ErrnoException) => error.code)
  // Gone, or hidden because it belongs to another user, as whom no server on these files could run.
  if (command === 'ENOENT' || command === 'ESRCH') return false
  if (command === undefined || command === 'EACCES') return true
  // A process that died and was not yet waited for has an empty command line.
  const args = command.split('\0')
  if (!['postgres', 'postmaster'].includes(basename(args[0] ?? ''))) return false
  // A server works in its data folder, whatever name it was given for it; it takes some milliseconds to get there.
  const [here, there] = await Promise.all([stat(dataDir), stat(`${proc}/cwd`).catch(() => undefined)])
  if (here.ino === there?.ino && here.dev === there.dev) return true
  const named = args.includes('-D') ? args[args.indexOf('-D') + 1] : undefined
  if (named !== undefined) return (await realpath(named).catch(() => named)) === dataDir
  return there === undefined
}
