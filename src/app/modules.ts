import type { Database } from '../engine/database/database.ts'
import type { MigrationSet } from '../engine/database/migrate.ts'
import { engineMigrations } from '../engine/engine.ts'
import type { Route } from '../engine/http/route.ts'
import type { EventSubscription } from '../engine/worker/subscription.ts'
import type { Clock } from '../kernel/clock.ts'
import type { EventType } from '../kernel/event.ts'
import { payroll } from '../modules/payroll/index.ts'
import { personnel } from '../modules/personnel/index.ts'

/** What modules are handed, so that they never reach for it. */
export interface ModuleNeeds {
  readonly database: Database
  readonly clock: Clock
  readonly newId: () => string
}

export interface Module {
  readonly name: string
  readonly migrations: MigrationSet
  readonly events: readonly EventType<any>[]
  handlers(needs: ModuleNeeds): readonly EventSubscription[]
  routes(needs: ModuleNeeds): readonly Route[]
}

/** The business, in the order in which its tables are made. */
export const modules: readonly Module[] = [personnel, payroll]

export const migrations: readonly MigrationSet[] = [engineMigrations, ...modules.map((module) => module.migrations)]
