import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { migrate } from '../engine/database/migrate.ts'
import { openDatabase } from '../engine/database/database.ts'
import type { Database, DatabaseOptions } from '../engine/database/database.ts'
import { engineMigrations } from '../engine/engine.ts'

export interface TestDatabase {
  readonly url: string
  /** With the engine's tables. */
  open(options?: Partial<DatabaseOptions>): Promise<Database>
  drop(): Promise<void>
}

/** A fresh database on the server that the test run has started (`KERP_TEST_DATABASE_URL`), so that tests share nothing. */
export async function testDatabase(): Promise<TestDatabase> {
  const server = process.env['KERP_TEST_DATABASE_URL']
  if (!server)
    throw new Error('KERP_TEST_DATABASE_URL is not set: run the tests through `npm test`, which starts a server')
  const name = `kerp_test_${randomBytes(6).toString('hex')}`
  await onServer(server, `create database ${name}`)
  const url = Object.assign(new URL(server), { pathname: `/${name}` }).toString()
  return {
    url,
    async open(options = {}) {
      const database = await openDatabase({ url, ...options })
      await migrate(database, [engineMigrations])
      return database
    },
    drop: () => onServer(server, `drop database if exists ${name} with (force)`),
  }
}

async function onServer(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
