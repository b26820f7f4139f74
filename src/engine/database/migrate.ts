import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { KerpError, messageOf } from '../../kernel/errors.ts'
import type { Database } from './database.ts'

/** The migrations of one module: a folder of files `001-what.sql`, run in the order of their names, each once. */
export interface MigrationSet {
  readonly module: string
  readonly folder: URL
}

export interface Migration {
  readonly module: string
  readonly name: string
  readonly text: string
  readonly checksum: string
}

/** Any number will do, so long as nobody else locks on it. */
const lockKey = 5_377_301_120

/** Lists what has not run yet, in the order in which it would. */
export async function planMigrations(database: Database, sets: readonly MigrationSet[]): Promise<Migration[]> {
  const declared = await readSets(sets)
  return pending(declared, await readHistory(database))
}

/** Runs what has not run yet, each in a transaction of its own, while no other process does. */
export async function migrate(
  database: Database,
  sets: readonly MigrationSet[],
  log: (line: string) => void = () => {},
): Promise<Migration[]> {
  const declared = await readSets(sets)
  // Most starts find nothing to do, and then need no lock.
  if (pending(declared, await readHistory(database)).length === 0) return []
  const holder = await database.connect()
  try {
    await holder.query(`select pg_advisory_lock(${lockKey})`)
    await holder.query(`
      create schema if not exists kerp;
      create table if not exists kerp.migrations (
        module text not null, name text not null, checksum text not null, ran_at timestamptz not null default now(),
        primary key (module, name))`)
    const due = pending(declared, await readHistory(database))
    for (const migration of due) {
      await runOne(database, migration)
      log(`migrated ${migration.module}/${migration.name}`)
    }
    return due
  } finally {
    await holder.end()
  }
}

async function runOne(database: Database, { module, name, text, checksum }: Migration): Promise<void> {
  try {
    await database.transaction(async (tx) => {
      await tx.query(text)
      await tx.sql`insert into kerp.migrations (module, name, checksum) values (${module}, ${name}, ${checksum})`
    })
  } catch (cause) {
    throw new KerpError(
      'MIGRATION_FAILED',
      `migration ${module}/${name} failed, nothing of it was kept: ${messageOf(cause)}`,
      { cause },
    )
  }
}

type History = Map<string, string>

async function readHistory(database: Database): Promise<History> {
  const [exists] = await database.sql<{ there: boolean }>`select to_regclass('kerp.migrations') is not null as there`
  if (!exists?.there) return new Map()
  const rows = await database.sql<{ module: string; name: string; checksum: string }>`
    select module, name, checksum from kerp.migrations order by module, name`
  return new Map(rows.map(({ module, name, checksum }) => [`${module}/${name}`, checksum]))
}

function pending(declared: readonly Migration[], history: History): Migration[] {
  const due = declared.filter((migration) => {
    const { module, name, checksum } = migration
    const ran = history.get(`${module}/${name}`)
    if (ran !== undefined && ran !== checksum) {
      throw new KerpError('MIGRATION_CHANGED', `migration ${module}/${name} was edited after it ran here`, {
        hint: 'put the file back as it was, and write the change as a new migration',
      })
    }
    return ran === undefined
  })
  return due
}

async function readSets(sets: readonly MigrationSet[]): Promise<Migration[]> {
  const all: Migration[] = []
  for (const { module, folder } of sets) {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
    for (const name of names) {
      const text = await readFile(new URL(name, folder), 'utf8')
      // Line ends differ between checkouts; that is no edit.
      const checksum = createHash('sha256').update(text.replaceAll('\r\n', '\n')).digest('hex')
      all.push({ module, name, text, checksum })
    }
  }
  return all
}
