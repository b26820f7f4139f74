import { randomBytes } from 'node:crypto'
import { readFile, readlink, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'

/**
 * Which of our processes started the server, and from where. Several containers may share a data folder without seeing each
 * other's processes; then a pid means nothing, and only the beat (the file's time, renewed while the owner lives) tells a
 * folder that is in use from one whose container was killed. Taking the former for the latter would put two servers on the
 * same files.
 */
export interface Owner {
  readonly pid: number
  readonly postmaster: number
  readonly place: Place
  readonly beatMs: number
}

interface Place {
  readonly host: string
  /** Changes with every start of the machine; empty where the system has no such thing. */
  readonly boot: string
  /** Processes see each other only within the same namespace. */
  readonly processes: string
}

export const beatEveryMs = 2_000
/** Generous: a busy event loop beats late. */
export const silentAfterMs = 8_000

export async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    const [text, { mtimeMs }] = await Promise.all([readFile(file, 'utf8'), stat(file)])
    return { ...(JSON.parse(text) as Omit<Owner, 'beatMs'>), beatMs: mtimeMs }
  } catch {
    return undefined
  }
}

export async function writeOwner(file: string, postmaster: number): Promise<void> {
  const made = `${file}.${randomBytes(4).toString('hex')}`
  await writeFile(made, JSON.stringify({ pid: process.pid, postmaster, place: await thisPlace() }))
  await rename(made, file)
}

export async function removeOwner(file: string, postmaster: number): Promise<void> {
  if ((await readOwner(file))?.postmaster === postmaster) await rm(file, { force: true })
}

export async function beat(file: string): Promise<void> {
  const now = Date.now() / 1000
  await utimes(file, now, now)
}

/** `here`: its pids can be asked for. `dead`: the machine was started again since. `elsewhere`: only the beat tells. */
export async function whereIs(owner: Owner): Promise<'here' | 'dead' | 'elsewhere'> {
  const here = await thisPlace()
  const there = owner.place
  if (
    there.boot === here.boot &&
    there.processes === here.processes &&
    (here.boot !== '' || there.host === here.host)
  ) {
    return 'here'
  }
  return there.host === here.host && there.boot !== here.boot ? 'dead' : 'elsewhere'
}

async function thisPlace(): Promise<Place> {
  const [boot, processes] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => ''),
    readlink('/proc/self/ns/pid').catch(() => ''),
  ])
  return { host: hostname(), boot: boot.trim(), processes }
}
