import { sleep } from '../../kernel/clock.ts'
import type { Clock } from '../../kernel/clock.ts'
import { systemClock } from '../../kernel/clock.ts'
import { toError } from '../../kernel/errors.ts'
import type { Database } from '../database/database.ts'
import type { Observer } from '../telemetry/observer.ts'
import { silentObserver } from '../telemetry/observer.ts'

export interface HousekeepingOptions {
  database: Database
  /** How long the history of events is kept. */
  keepDays: number
  observer?: Observer
  clock?: Clock
}

const everyMs = 3600 * 1000
const daysAhead = 7

/** Makes the partitions of the coming days and drops those that are too old. Any number of processes may do it. */
export function startHousekeeping({
  database,
  keepDays,
  observer = silentObserver,
  clock = systemClock,
}: HousekeepingOptions) {
  const stopping = new AbortController()
  const done = (async () => {
    while (!stopping.signal.aborted) {
      await once().catch((error) => observer.failed('housekeeping', toError(error)))
      await sleep(clock, everyMs, stopping.signal)
    }
  })()

  async function once(): Promise<void> {
    await database.transaction(async (tx) => {
      // Dropping waits for everyone who reads; rather later than in everybody's way.
      await tx.query("set local lock_timeout = '2s'")
      await tx.sql`select kerp.make_partitions(${daysAhead})`
      await tx.sql`select kerp.drop_history(${keepDays})`
    })
  }

  return {
    async stop() {
      stopping.abort()
      await done
    },
  }
}
