import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import type { TestDatabase } from '../../src/testing/postgres.ts'
import { testDatabase } from '../../src/testing/postgres.ts'
import { waitFor } from '../../src/testing/wait.ts'
import { killablePostgres } from './postgres.ts'
import { cli, endAll, freePort, startKerp, startProcess } from './processes.ts'

let home: TestDatabase
let folder: string
beforeAll(async () => {
  home = await testDatabase()
  folder = await mkdtemp(join(tmpdir(), 'kerp-start-'))
})
afterAll(async () => {
  await home.drop()
  await rm(folder, { recursive: true, force: true })
})
afterEach(endAll)

/** On a busy machine with two processors; alone it takes half a second. */
const quicklyMs = 10_000

const changed = (change: Partial<URL>) => Object.assign(new URL(home.url), change).toString()

describe('a DATABASE_URL that is wrong ends the start at once, with a hint', () => {
  test.each<[string, () => string, string]>([
    ['without any sense', () => 'postgres', 'CONFIG_INVALID'],
    ["of another kind of server's", () => 'mysql://user:geheim@127.0.0.1/kerp', 'CONFIG_INVALID'],
    ['with a wrong password', () => changed({ password: 'geheim' }), 'DATABASE_UNREACHABLE'],
    ['with a user that is not there', () => changed({ username: 'nobody' }), 'DATABASE_UNREACHABLE'],
    ['with a database that is not there', () => changed({ pathname: '/not_there' }), 'DATABASE_UNREACHABLE'],
    ['with a host that is not there', () => changed({ hostname: 'postgres.invalid' }), 'DATABASE_UNREACHABLE'],
  ])('%s', async (_, url, code) => {
    const began = systemClock.monotonic()
    const kerp = startKerp([], { DATABASE_URL: url(), KERP_PORT: String(await freePort()) })
    expect(await kerp.ended).toEqual({ code: 1, signal: null })
    expect(systemClock.monotonic() - began).toBeLessThan(quicklyMs)
    expect(kerp.output()).toMatch(new RegExp(`→ [^]*\\(${code}\\)`))
    expect(kerp.output()).not.toContain('geheim')
  })
})

test('a server that is not there yet is waited for, and whoever waits can be stopped', async () => {
  const port = await freePort()
  const kerp = startKerp(['--role', 'worker'], { DATABASE_URL: `postgres://kerp@127.0.0.1:${port}/kerp` })
  await kerp.says(/trying again/)
  const began = systemClock.monotonic()
  await kerp.kill('SIGTERM')
  expect(systemClock.monotonic() - began).toBeLessThan(quicklyMs)
})

test('a server that goes away in the middle of a start is waited for too', { timeout: 60_000 }, async () => {
  await using postgres = await killablePostgres()
  const first = startKerp(['--role', 'worker'], { DATABASE_URL: postgres.url })
  await first.says(/kerp is ready/)
  await first.kill('SIGKILL')
  for (const connections of [1, 2, 3]) {
    await untilConnected(postgres.url, (count) => count === 0)
    const kerp = startKerp(['--role', 'worker'], { DATABASE_URL: postgres.url, LOG_LEVEL: 'warn' })
    await untilConnected(postgres.url, (count) => count >= connections)
    await postgres.kill()
    await postgres.revive()
    await kerp.says(/kerp is ready/)
    await kerp.kill('SIGKILL')
  }
})

async function untilConnected(url: string, fits: (count: number) => boolean): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  const count = `select count(*)::int as count from pg_stat_activity where datname = 'kerp' and pid <> pg_backend_pid()
    and backend_type = 'client backend' and application_name = 'kerp'`
  await waitFor(async () => fits((await client.query<{ count: number }>(count)).rows[0]!.count), { everyMs: 1 })
  await client.end()
}

test('a command does not wait for a server that is not there', async () => {
  const url = `postgres://kerp@127.0.0.1:${await freePort()}/kerp`
  const kerp = startProcess(cli, ['outbox'], { DATABASE_URL: url })
  expect(await kerp.ended).toMatchObject({ code: 1 })
  expect(kerp.output()).toMatch(/→ .*\n.*\(DATABASE_UNREACHABLE\)/)
})

test('a server that takes the connection and never answers is given up', { timeout: 60_000 }, async () => {
  const silent = createServer(() => {})
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = silent.address() as AddressInfo
    const kerp = startProcess(cli, ['outbox'], { DATABASE_URL: `postgres://kerp@127.0.0.1:${port}/kerp` })
    expect(await kerp.ended).toMatchObject({ code: 1 })
    expect(kerp.output()).toContain('(DATABASE_UNREACHABLE)')
  } finally {
    silent.close()
  }
})

test('a port that is in use', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = other.address() as AddressInfo
    const kerp = startKerp([], { DATABASE_URL: home.url, KERP_PORT: String(port) })
    expect(await kerp.ended).toEqual({ code: 1, signal: null })
    expect(kerp.output()).toMatch(new RegExp(`${port}[^]*→ [^]*KERP_PORT=[^]*\\(PORT_IN_USE\\)`))
  } finally {
    other.close()
  }
})

test.each([
  // Permission bits mean nothing to root, who runs containers: this nobody may write to.
  ['that cannot be written to', '/proc/kerp'],
  ['below a file', undefined],
])('a data folder %s', async (_, given) => {
  const file = join(folder, 'a-file')
  await writeFile(file, '')
  const kerp = startKerp([], { KERP_DATA_DIR: given ?? join(file, 'data'), KERP_PORT: String(await freePort()) })
  expect(await kerp.ended).toEqual({ code: 1, signal: null })
  expect(kerp.output()).toMatch(/→ .*KERP_DATA_DIR[^]*\(DATA_DIR_UNUSABLE\)/)
})
