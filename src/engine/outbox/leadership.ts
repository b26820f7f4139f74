import type { Clock } from '../../kernel/clock.ts'
import type { Database } from '../database/database.ts'
import { shardCount } from './store.ts'

/** Says which shards this process leads, as that changes. */
export interface Leadership {
  /** Calls back with a shard when it becomes ours; the signal is aborted when it no longer is. */
  follow(lead: (shard: number, signal: AbortSignal) => void): void
  release(): Promise<void>
}

const lockClass = 537_730
const tryEveryMs = 1000

/**
 * A shard's leader holds a session lock on a connection of its own: when the process dies the server sees the connection close and the
 * next one takes over at once. The server ends the session of a frozen one, which sends no ping.
 */
export function postgresLeadership(database: Database, clock: Clock, onError: (error: Error) => void): Leadership {
  let client: Awaited<ReturnType<Database['connect']>> | undefined
  let led = new Map<number, AbortController>()
  let released = false
  let cancel = () => {}
  let round: Promise<void> = Promise.resolve()

  function lose(): void {
    client = undefined
    const lost = led
    led = new Map()
    for (const aborter of lost.values()) aborter.abort()
  }

  async function connect() {
    const next = await database.connect()
    next.on('end', () => next === client && lose())
    await next.query(`set idle_session_timeout = '${tryEveryMs * 15}ms'`)
    client = next
    return next
  }

  async function tryAll(lead: (shard: number, signal: AbortSignal) => void): Promise<void> {
    const on = client ?? (await connect())
    const wanted = Array.from({ length: shardCount }, (_, shard) => shard).filter((shard) => !led.has(shard))
    const { rows } = await on.query<{ shard: number; ours: boolean }>({
      name: 'kerp_lead',
      text: `select shard, pg_try_advisory_lock(${lockClass}, shard) as ours from unnest($1::int[]) shard`,
      values: [wanted],
    })
    for (const { shard, ours } of rows) {
      if (!ours || client !== on) continue
      const aborter = new AbortController()
      led.set(shard, aborter)
      lead(shard, aborter.signal)
    }
  }

  return {
    follow(lead) {
      const again = () => {
        round = tryAll(lead).catch((error: Error) => onError(error))
        void round.then(() => {
          if (!released) cancel = clock.after(tryEveryMs, again)
        })
      }
      again()
    },
    async release() {
      released = true
      cancel()
      await round
      const last = client
      lose()
      await last?.end()
    },
  }
}
