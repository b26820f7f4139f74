import { randomInt } from 'node:crypto'
import type { Database } from '../../engine/database/database.ts'

/**
 * Knows whether a process that worked on this database has died. Each leaves a row while it works and holds an advisory lock on it:
 * a row whose lock is free is of one that went without saying goodbye. For a while after that, whoever starts next takes its
 * messages one by one, as one of them may have been the cause.
 */
export interface Presence {
  /** Called by a consumer that starts; the returned function by the same when it has ended. */
  enter(): () => Promise<void>
  /** Whether somebody has died recently. */
  mustBeCareful(): boolean
  /** Resolves once that is known, or could not be found out. */
  known(): Promise<unknown>
}

const lockClass = 537_731
const carefulForMs = 5000
const reconnectMs = 1000

export function postgresPresence(database: Database, onError: (error: Error) => void = () => {}): Presence {
  const key = randomInt(2 ** 31)
  let consumers = 0
  let client: Awaited<ReturnType<Database['connect']>> | undefined
  /** Coming and going, one after the other: a new connection could not lock what the old one still holds. */
  let settled: Promise<unknown> = Promise.resolve()
  let carefulUntil = 0
  let retry: NodeJS.Timeout | undefined

  function announceLater(): void {
    settled = settled.then(announce)
  }

  async function announce(): Promise<void> {
    if (client || consumers === 0) return
    try {
      const next = await database.connect()
      // A program that forgets to drain may end all the same.
      ;(next as unknown as { unref(): void }).unref()
      next.on('end', () => client === next && lose())
      await next.query('select pg_advisory_lock($1, $2)', [lockClass, key])
      await next.query('insert into kerp.processes (lock_key) values ($1) on conflict do nothing', [key])
      const { rowCount } = await next.query(
        'delete from kerp.processes where lock_key <> $2 and pg_try_advisory_xact_lock($1, lock_key)',
        [lockClass, key],
      )
      if (rowCount) carefulUntil = performance.now() + carefulForMs
      client = next
    } catch (error) {
      onError(error as Error)
      lose()
    }
  }

  function lose(): void {
    client = undefined
    if (consumers === 0) return
    retry = setTimeout(announceLater, reconnectMs)
    retry.unref()
  }

  async function leave(): Promise<void> {
    if (consumers > 0) return
    clearTimeout(retry)
    const last = client
    client = undefined
    await last?.query('delete from kerp.processes where lock_key = $1', [key]).catch(onError)
    await last?.end().catch(onError)
  }

  return {
    enter() {
      if (consumers++ === 0) announceLater()
      return async () => {
        if (--consumers === 0) await (settled = settled.then(leave))
      }
    },
    mustBeCareful: () => performance.now() < carefulUntil,
    known: () => settled,
  }
}
