import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import type { Database } from './database.ts'
import { openDatabase } from './database.ts'
import { migrate, planMigrations } from './migrate.ts'
import type { MigrationSet } from './migrate.ts'

let home: TestDatabase
let database: Database
let folder: string
let set: MigrationSet

beforeEach(async () => {
  home = await testDatabase()
  database = await openDatabase({ url: home.url })
  folder = await mkdtemp(join(tmpdir(), 'kerp-migrate-'))
  set = { module: 'shop', folder: pathToFileURL(`${folder}/`) }
})
afterEach(async () => {
  await database.close()
  await home.drop()
  await rm(folder, { recursive: true })
})

const file = (name: string, text: string) => writeFile(join(folder, name), text)
const names = (migrations: readonly { name: string }[]) => migrations.map(({ name }) => name)
const columns = async () =>
  (
    await database.sql<{ name: string }>`
    select attname as name from pg_attribute where attrelid = to_regclass('items') and attnum > 0 order by attnum`
  ).map(({ name }) => name)

test('runs each file once, in the order of their names', async () => {
  await file('002-b.sql', 'alter table items add b int')
  await file('001-a.sql', 'create table items (a int); insert into items values (1)')
  await file('notes.txt', 'not a migration')
  const lines: string[] = []
  expect(names(await migrate(database, [set], (line) => lines.push(line)))).toEqual(['001-a.sql', '002-b.sql'])
  expect(lines).toEqual(['migrated shop/001-a.sql', 'migrated shop/002-b.sql'])
  expect(await columns()).toEqual(['a', 'b'])

  await file('003-c.sql', 'alter table items add c int')
  expect(names(await migrate(database, [set]))).toEqual(['003-c.sql'])
  expect(await migrate(database, [set])).toEqual([])
})

test('files of the same name in two modules are two migrations, the first module first', async () => {
  await file('001-a.sql', 'create table if not exists items (a int)')
  const ran = await migrate(database, [{ ...set, module: 'zoo' }, set])
  expect(ran.map(({ module }) => module)).toEqual(['zoo', 'shop'])
})

test('several processes at once run each file once', async () => {
  // A second run of any of them would fail.
  await file('001-a.sql', 'create table items (a int)')
  await file('002-b.sql', 'alter table items add b int')
  await using others = new AsyncDisposableStack()
  const all = [database]
  for (let i = 0; i < 3; i++) {
    const other = await openDatabase({ url: home.url })
    others.defer(() => other.close())
    all.push(other)
  }
  const ran = await Promise.all(all.map((each) => migrate(each, [set])))
  expect(names(ran.flat())).toEqual(['001-a.sql', '002-b.sql'])
  expect(await columns()).toEqual(['a', 'b'])
})

test('a file that was edited after it ran is refused, and nothing else is run', async () => {
  await file('001-a.sql', 'create table items (a int)')
  await migrate(database, [set])
  await file('001-a.sql', 'create table items (a bigint)')
  await file('002-b.sql', 'alter table items add b int')
  const changed = {
    code: 'MIGRATION_CHANGED',
    message: expect.stringContaining('shop/001-a.sql'),
    hint: expect.any(String),
  }
  await expect(migrate(database, [set])).rejects.toMatchObject(changed)
  await expect(planMigrations(database, [set])).rejects.toMatchObject(changed)
  expect(await columns()).toEqual(['a'])
})

test('other line ends are no edit', async () => {
  await file('001-a.sql', 'create table items (\n  a int\n)')
  await migrate(database, [set])
  await file('001-a.sql', 'create table items (\r\n  a int\r\n)')
  expect(await migrate(database, [set])).toEqual([])
})

test('of a file that fails nothing is kept, it is named, and mended it runs', async () => {
  await file('001-a.sql', 'create table items (a int)')
  await file('002-b.sql', 'alter table items add b int;\nalter table nowhere add c int')
  const failed = {
    code: 'MIGRATION_FAILED',
    message: expect.stringMatching(/shop\/002-b\.sql.*"nowhere" does not exist/),
  }
  await expect(migrate(database, [set])).rejects.toMatchObject(failed)
  expect(await columns()).toEqual(['a'])
  await file('002-b.sql', 'alter table items add b int')
  expect(names(await migrate(database, [set]))).toEqual(['002-b.sql'])
})

test('one that fails only at its commit is named too', async () => {
  await file(
    '001-a.sql',
    'create table items (a int primary key, b int references items deferrable initially deferred); insert into items values (1, 2)',
  )
  await expect(migrate(database, [set])).rejects.toMatchObject({
    code: 'MIGRATION_FAILED',
    message: expect.stringContaining('shop/001-a.sql'),
  })
})

test('the plan lists what would run and runs nothing', async () => {
  await file('001-a.sql', 'create table items (a int)')
  expect(names(await planMigrations(database, [set]))).toEqual(['001-a.sql'])
  expect(await columns()).toEqual([])
  await migrate(database, [set])
  await file('002-b.sql', 'select 1')
  expect(names(await planMigrations(database, [set]))).toEqual(['002-b.sql'])
})

test('a folder that is not there is told by name', async () => {
  const missing = { module: 'shop', folder: new URL('missing/', set.folder) }
  await expect(migrate(database, [missing])).rejects.toThrow('missing')
})
