import { sleep } from '../../../kernel/clock.ts'
import { KerpError } from '../../../kernel/errors.ts'
import { orOwnServer } from './binaries.ts'
import { database, host } from './connect.ts'
import type { Holder } from './holder.ts'
import { createInspector } from './holder.ts'
import type { EmbeddedPostgres } from './index.ts'
import type { Launched } from './launch.ts'
import { choosePort, isFree } from './port.ts'
import { readLock } from './postmaster.ts'
import type { StartOptions } from './start.ts'
import { startServer } from './start.ts'

export interface ServerOptions extends StartOptions {
  readonly log: (line: string) => void
  /** What it most likely is, until the server says so itself. */
  readonly version: string
  /** How long others may take to start up or shut down. */
  readonly patienceMs?: number
}

const portPatienceMs = 10_000
const stopMs = 60_000

/**
 * The server on one data folder, as seen by this process. PostgreSQL's own lock on its files decides who runs it: whoever
 * finds it free starts a server, whoever loses that race, or comes later, uses the winner's.
 */
export function createServer(options: ServerOptions): EmbeddedPostgres {
  const { folder, dataDir, password, log, clock, patienceMs = 60_000 } = options
  const takenPorts = new Set<number>()
  let own: Launched | undefined
  let port: number | undefined
  let version = options.version
  let underWay: Promise<void> | undefined
  let stopped: Promise<void> | undefined

  async function bringUp(): Promise<void> {
    const inspect = createInspector({ dataDir, ownerFile: folder.owner, password })
    const began = clock.monotonic()
    let isSaid = false
    for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 1.5, 100)) {
      if (stopped !== undefined) throw wasStopped()
      const lock = await readLock(dataDir)
      const holder: Holder = lock === undefined ? { kind: 'gone' } : await inspect(lock)
      if (holder.kind === 'ready') return use(holder)
      const waitedMs = clock.monotonic() - began
      const waitingFor = holder.kind === 'busy' ? `a PostgreSQL is ${holder.doing}` : await start(waitedMs)
      if (waitingFor === undefined) return
      if (waitedMs > patienceMs) throw tookTooLong(waitingFor)
      if (waitedMs > 1_000 && !isSaid) log(`waiting: ${waitingFor}`)
      isSaid ||= waitedMs > 1_000
      await sleep(clock, pauseMs)
    }
  }

  function use(found: Holder & { kind: 'ready' }): void {
    if (port !== undefined && port !== found.port) {
      throw new KerpError('EMBEDDED_UNAVAILABLE', `PostgreSQL now listens on port ${found.port} instead of ${port}`, {
        hint: 'Start this process again: another one started the server anew while its port was taken.',
      })
    }
    version = found.version ?? version
    if (port === undefined) log(`using the PostgreSQL ${version} that runs on port ${found.port} (data in ${dataDir})`)
    port = found.port
  }

  /** Starts a server; otherwise says what to wait for before looking again. */
  async function start(waitedMs: number): Promise<string | undefined> {
    if (port !== undefined && !(await isFree(port))) return portTaken(port, waitedMs)
    const chosen = port ?? (await choosePort(folder.port, takenPorts))
    if (stopped !== undefined) throw wasStopped()
    const began = clock.monotonic()
    const result = await startServer(options, chosen, follow)
    if (typeof result === 'object' && 'pid' in result) {
      port = chosen
      version = result.version ?? version
      const tookMs = Math.round(clock.monotonic() - began)
      log(`PostgreSQL ${version} started on port ${port} in ${tookMs} ms (pid ${result.pid}, data in ${dataDir})`)
      return undefined
    }
    if (stopped !== undefined) throw wasStopped()
    if (result === 'look-again') return 'another process is starting PostgreSQL'
    if (result === 'remains') return 'processes of a PostgreSQL that was killed are still ending'
    if (result !== 'port-taken') throw result
    takenPorts.add(chosen)
    return `another program took port ${chosen}`
  }

  function follow(launched: Launched): void {
    own = launched
    if (stopped !== undefined) launched.end()
    void launched.exited.then(({ code }) => {
      if (own === launched) own = undefined
      if (stopped === undefined && port !== undefined) log(`PostgreSQL has ended (code ${code}), see ${folder.log}`)
    })
  }

  /** Without its port the url would no longer be true. */
  function portTaken(taken: number, waitedMs: number): string {
    if (waitedMs < portPatienceMs) return `another program holds port ${taken}`
    throw new KerpError('PORT_IN_USE', `PostgreSQL cannot be started again: another program took its port ${taken}`, {
      hint: 'Start this process again: it then takes another port.',
    })
  }

  async function shutDown(): Promise<void> {
    own?.end()
    await underWay?.catch(() => undefined)
    const mine = own
    if (mine === undefined) return
    mine.end()
    if (await within(stopMs, mine.exited)) return
    log(
      `PostgreSQL takes longer than ${stopMs / 1000} s to shut down: ending it at once, it recovers at the next start`,
    )
    const pid = await mine.pid
    if (pid !== undefined && !mine.hasExited()) process.kill(pid, 'SIGQUIT')
    await within(10_000, mine.exited)
  }

  async function within(ms: number, done: Promise<unknown>): Promise<boolean> {
    const over = new AbortController()
    const inTime = await Promise.race([done.then(() => true), sleep(clock, ms, over.signal).then(() => false)])
    over.abort()
    return inTime
  }

  return {
    get url() {
      return `postgres://kerp:${password}@${host}:${port}/${database}`
    },
    get version() {
      return version
    },
    get owner() {
      return own !== undefined
    },
    dataDir,
    ensure() {
      if (stopped !== undefined) return Promise.reject(wasStopped())
      underWay ??= bringUp().finally(() => (underWay = undefined))
      return underWay
    },
    stop() {
      stopped ??= Promise.resolve().then(shutDown)
      return stopped
    },
  }
}

function wasStopped(): KerpError {
  return new KerpError('EMBEDDED_UNAVAILABLE', 'The embedded PostgreSQL was stopped by this process', {
    hint: 'Nothing may use the database after stop(): finish or call off the work before.',
  })
}

function tookTooLong(waitingFor: string): KerpError {
  return new KerpError('EMBEDDED_UNAVAILABLE', `The embedded PostgreSQL is not available in time: ${waitingFor}`, {
    hint: `Start again in a moment, or end what is in the way. ${orOwnServer}`,
  })
}
