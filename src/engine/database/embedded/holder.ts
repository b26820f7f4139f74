import { KerpError } from '../../../kernel/errors.ts'
import { greet } from './connect.ts'
import type { Owner } from './owner.ts'
import { readOwner, silentAfterMs, whereIs } from './owner.ts'
import type { Lock } from './postmaster.ts'
import { isAlive, isRunning, isServerOf, removeStaleLock } from './postmaster.ts'

export type Holder =
  | { readonly kind: 'ready'; readonly pid: number; readonly port: number; readonly version: string | undefined }
  /** Somebody is there, or was a moment ago: look again soon. */
  | { readonly kind: 'busy'; readonly doing: string }
  | { readonly kind: 'gone' }

export interface Whereabouts {
  readonly dataDir: string
  readonly ownerFile: string
  readonly password: string
}

/** Finds out who holds the lock on PostgreSQL's files. It remembers what it saw, so each wait takes a new one. */
export function createInspector({ dataDir, ownerFile, password }: Whereabouts): (lock: Lock) => Promise<Holder> {
  let firstBeatMs: number | undefined
  let interrupted: number | undefined

  return async (lock) => {
    const owner = await readOwner(ownerFile)
    const record = owner?.postmaster === lock.pid ? owner : undefined
    const place = record === undefined ? 'here' : await whereIs(record)

    if (
      record !== undefined &&
      place === 'here' &&
      !(await isRunning(record.pid)) &&
      (await isServerOf(lock.pid, dataDir))
    ) {
      // Its owner died and the watchdog is ending it, or died too: nobody else ever would.
      if (interrupted !== lock.pid) interrupt(lock.pid)
      interrupted = lock.pid
      return { kind: 'busy', doing: 'shutting down, as the process that started it has died' }
    }
    if (lock.status === 'ready') {
      // The password is random: who accepts it is the server on these files, wherever it runs.
      const greeting = await greet(lock.port, password)
      if (greeting.kind === 'ready') return { kind: 'ready', pid: lock.pid, port: lock.port, version: greeting.version }
      if (greeting.kind === 'denied' && (await isServerOf(lock.pid, dataDir)))
        throw passwordRefused(dataDir, greeting.cause)
    }
    if (Number.isNaN(lock.pid)) return { kind: 'busy', doing: 'starting up' } // it is just writing its lock
    if (await isServerOf(lock.pid, dataDir)) {
      const doing = { starting: 'starting up', ready: 'not answering', stopping: 'shutting down' }[lock.status]
      return { kind: 'busy', doing }
    }
    if (place === 'elsewhere' && record !== undefined && (await mayLive(record))) {
      return { kind: 'busy', doing: 'perhaps running in another container' }
    }
    // PostgreSQL removes the lock of a dead process itself, and checks then that no other process has its memory. But it
    // takes any process with that pid for a server.
    if (isAlive(lock.pid)) await removeStaleLock(dataDir, lock.text)
    return { kind: 'gone' }
  }

  async function mayLive(record: Owner): Promise<boolean> {
    firstBeatMs ??= record.beatMs
    if (record.beatMs !== firstBeatMs) {
      throw new KerpError(
        'DATA_DIR_UNUSABLE',
        `${dataDir} is in use by another container or machine (${record.place.host})`,
        {
          hint: 'Give each its own KERP_DATA_DIR, or one PostgreSQL for all of them: set DATABASE_URL.',
        },
      )
    }
    return Date.now() - record.beatMs < silentAfterMs
  }
}

function interrupt(pid: number): void {
  try {
    process.kill(pid, 'SIGINT') // a fast shutdown; on Windows its end, which it recovers from
  } catch {
    // it ended by itself
  }
}

export function passwordRefused(dataDir: string, cause: Error): KerpError {
  return new KerpError(
    'DATA_DIR_UNUSABLE',
    `The embedded PostgreSQL does not accept the password in ${dataDir}/kerp.password`,
    {
      cause,
      hint: "Write the password that the user 'kerp' has now into that file, or set DATABASE_URL.",
    },
  )
}
