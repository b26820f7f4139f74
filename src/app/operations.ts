import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { migrate, planMigrations } from '../engine/database/migrate.ts'
import type {
  DeadLetterDetail,
  DeadLetterFilter,
  DeadLetterRow,
  ResolveOptions,
} from '../engine/worker/dead-letters.ts'
import {
  discardDeadLetters,
  listDeadLetters,
  redriveDeadLetters,
  showDeadLetter,
} from '../engine/worker/dead-letters.ts'
import type { EventLife, RecentEvent } from '../engine/outbox/lineage.ts'
import type { EngineDepth } from '../engine/outbox/depth.ts'
import { lifeOfEvent, recentEvents } from '../engine/outbox/lineage.ts'
import { outboxDepth } from '../engine/outbox/depth.ts'
import { startHints } from '../engine/outbox/hints.ts'
import type { Clock } from '../kernel/clock.ts'
import { systemClock } from '../kernel/clock.ts'
import { KerpError } from '../kernel/errors.ts'
import type { Config } from './config.ts'
import { openConfigured } from './database.ts'
import { migrations } from './modules.ts'

export type { DeadLetterDetail, DeadLetterFilter, DeadLetterRow, EngineDepth, EventLife, RecentEvent }

/** What an operator does to a system that runs, or does not: the command line's window into it. */
export interface Operations extends AsyncDisposable {
  lifeOfEvent(eventId: string): Promise<EventLife | undefined>
  recentEvents(wanted: { before?: string; after?: string; limit: number; type?: string }): Promise<RecentEvent[]>
  /** Calls `look` whenever there may be new events; returns how to end it. */
  onEvents(look: () => void): Promise<() => Promise<void>>
  depth(): Promise<EngineDepth>
  listDeadLetters(filter: DeadLetterFilter): Promise<{ items: DeadLetterRow[]; nextCursor: string | null }>
  showDeadLetter(id: string): Promise<DeadLetterDetail | undefined>
  redriveDeadLetters(options: ResolveOptions): Promise<number>
  discardDeadLetters(options: ResolveOptions): Promise<number>
}

/** Few connections: it may run beside a server that uses almost all there are. */
const connections = 3

export async function openOperations(config: Config, clock: Clock = systemClock): Promise<Operations> {
  refuseWithoutData(config)
  await using opening = new AsyncDisposableStack()
  const quiet = { clock, say() {}, onError() {} }
  const { database } = await openConfigured({ ...config, pool: connections }, opening, quiet)
  const missing = await planMigrations(database, migrations)
  if (missing.length) {
    const names = missing.map(({ module, name }) => `${module}/${name}`).join(', ')
    throw new KerpError('MIGRATION_MISSING', `the database lacks ${names}`, { hint: 'run: kerp migrate' })
  }
  const opened = opening.move()
  return {
    lifeOfEvent: (eventId) => lifeOfEvent(database, eventId),
    recentEvents: (wanted) => recentEvents(database, wanted),
    async onEvents(look) {
      const hints = await startHints(database)
      hints.listen('*', look)
      return () => hints.close()
    },
    depth: () => outboxDepth(database),
    listDeadLetters: (filter) => listDeadLetters(database, filter),
    showDeadLetter: (id) => showDeadLetter(database, id),
    async redriveDeadLetters(options) {
      // The workers of other processes are woken by the hint that follows the commit.
      const hints = await startHints(database)
      try {
        return await redriveDeadLetters(database, options)
      } finally {
        await hints.close()
      }
    },
    discardDeadLetters: (options) => discardDeadLetters(database, options),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

export interface MigrationResult {
  /** As `module/name`, in the order in which they run. */
  readonly migrations: readonly string[]
}

/** Brings the database up to date, or only says what that would run. */
export async function runMigrations(
  config: Config,
  { planOnly, say, clock = systemClock }: { planOnly: boolean; say: (line: string) => void; clock?: Clock },
): Promise<MigrationResult> {
  await using opening = new AsyncDisposableStack()
  const { database } = await openConfigured({ ...config, pool: connections }, opening, { clock, say, onError() {} })
  const run = planOnly ? planMigrations(database, migrations) : migrate(database, migrations)
  return { migrations: (await run).map(({ module, name }) => `${module}/${name}`) }
}

/** Looking at what is not there must not create a database. */
export function hasData({ databaseUrl, dataDir }: Config): boolean {
  return databaseUrl !== undefined || existsSync(join(dataDir, 'postgres'))
}

function refuseWithoutData(config: Config): void {
  if (hasData(config)) return
  throw new KerpError('NOT_FOUND', `there is no database in ${config.dataDir} yet`, {
    hint: 'start it once with npm start, or say where it is with KERP_DATA_DIR or DATABASE_URL',
  })
}
