import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../../kernel/clock.ts'
import { sleep } from '../../../kernel/clock.ts'
import { KerpError } from '../../../kernel/errors.ts'
import type { Account } from './account.ts'
import { ownServerHint } from './binaries.ts'
import { greet } from './connect.ts'
import type { StartFailure } from './failure.ts'
import { explainFailure } from './failure.ts'
import type { Folder } from './folder.ts'
import { passwordRefused } from './holder.ts'
import type { Launched } from './launch.ts'
import { launch } from './launch.ts'
import { boundLog, logLength, readLog } from './log-file.ts'
import { beat, beatEveryMs, removeOwner, writeOwner } from './owner.ts'
import { readLock } from './postmaster.ts'
import { settingsFor } from './settings.ts'

export interface StartOptions {
  readonly folder: Folder
  readonly dataDir: string
  readonly password: string
  readonly account: Account | undefined
  /** Asked for only when this process starts a server: who attaches needs no binaries. */
  readonly native: () => Promise<string>
  readonly settings: Record<string, string>
  readonly clock: Clock
}

export interface Started {
  readonly pid: number
  readonly version: string | undefined
}

/** After a crash it may take long: it reads up to max_wal_size again. */
const startMs = 10 * 60_000

/** Starts a server on the port and waits until it serves. `launched` is handed out at once, so that it can be called off. */
export async function startServer(
  options: StartOptions,
  port: number,
  handOut: (launched: Launched) => void,
): Promise<Started | StartFailure> {
  const { folder, dataDir, account } = options
  await makeSureItIsThere(dataDir)
  const native = await options.native()
  await boundLog(folder.log).catch(() => undefined)
  const [logFrom, settings] = await Promise.all([logLength(folder.log), settingsFor(port, options.settings)])

  const launched = launch({ native, dataDir, log: folder.log, settings, account })
  handOut(launched)
  const pid = await launched.pid
  if (pid !== undefined) {
    await lookAfter(launched, pid, folder)
    const version = await waitUntilReady(launched, pid, port, options)
    if (version !== undefined) {
      launched.letGo()
      return { pid, ...version }
    }
  }
  const { error } = await launched.exited
  if (error === undefined) return explainFailure(await readLog(folder.log, logFrom, 15), dataDir, folder.log)
  return new KerpError('EMBEDDED_UNAVAILABLE', `PostgreSQL cannot be started: ${error.message}`, {
    cause: error,
    hint: `It takes a /bin/sh, which this system seems to lack. ${ownServerHint}`,
  })
}

async function waitUntilReady(launched: Launched, pid: number, port: number, options: StartOptions) {
  const { clock, dataDir, password } = options
  const began = clock.monotonic()
  while (!launched.hasExited()) {
    const lock = await readLock(dataDir)
    if (lock?.pid === pid && lock.status === 'ready') {
      const greeting = await greet(port, password)
      if (greeting.kind === 'ready') return { version: greeting.version }
      if (greeting.kind === 'denied') {
        launched.end()
        throw passwordRefused(dataDir, greeting.cause)
      }
    }
    if (clock.monotonic() - began > startMs) {
      launched.end()
      throw new KerpError('EMBEDDED_UNAVAILABLE', `PostgreSQL did not get ready within ${startMs / 60_000} minutes`, {
        hint: `See ${options.folder.log}.`,
      })
    }
    await Promise.race([sleep(clock, 5), launched.exited])
  }
  return undefined
}

/** As long as it runs, our beat tells other containers that the folder is in use, and its log stays within bounds. */
async function lookAfter(launched: Launched, pid: number, folder: Folder): Promise<void> {
  // Without the record all that is lost is who may clear up after us.
  await writeOwner(folder.owner, pid).catch(() => undefined)
  const timer = setInterval(() => {
    beat(folder.owner).catch(() => undefined)
    boundLog(folder.log).catch(() => undefined)
  }, beatEveryMs)
  timer.unref()
  void launched.exited.then(() => {
    clearInterval(timer)
    removeOwner(folder.owner, pid).catch(() => undefined)
  })
}

async function makeSureItIsThere(dataDir: string): Promise<void> {
  if (await stat(join(dataDir, 'PG_VERSION')).catch(() => undefined)) return
  throw new KerpError('DATA_DIR_UNUSABLE', `PostgreSQL's files in ${dataDir} were removed while they were in use`, {
    hint: 'Start this process again: it then creates an empty database.',
  })
}
