import type { MigrationSet } from './database/migrate.ts'

/** The engine's own tables; run before those of any module. */
export const engineMigrations: MigrationSet = { module: 'engine', folder: new URL('./migrations/', import.meta.url) }
