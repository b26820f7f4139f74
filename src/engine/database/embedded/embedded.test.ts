import type { ChildProcess } from 'node:child_process'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, readFileSync, realpathSync } from 'node:fs'
import { mkdir, readdir, readlink, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { isKerpError } from '../../../kernel/errors.ts'
import { findPackage, prepareBinaries, systemFolder } from './binaries.ts'
import type { EmbeddedPostgres } from './index.ts'
import { openEmbeddedPostgres } from './index.ts'
import { launch } from './launch.ts'
import { beat } from './owner.ts'
import { isAlive, isServerOf, readLock } from './postmaster.ts'
import { privateCopy } from './private-copy.ts'
import { settingsFor } from './settings.ts'

const isRoot = process.geteuid?.() === 0
const isLinux = process.platform === 'linux'
/** Only root can start processes as somebody else, and only root has to. */
const testAsRoot = test.runIf(isRoot)

const nobody = { uid: 65_534, gid: 65_534 }
/** Somebody else can run this very program only where they may enter its folder: not in a checkout in root's home. */
const testAsStranger = test.runIf(isRoot && runsFor(nobody))

function runsFor(user: { uid: number; gid: number }): boolean {
  const read = `await import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)})`
  return (
    spawnSync(process.execPath, ['--input-type=module', '-e', read], { ...user, cwd: '/', stdio: 'ignore' }).status ===
    0
  )
}

const moduleUrl = new URL('./index.ts', import.meta.url).href
const cleanups: (() => unknown)[] = []
/** A folder with a database in it, for the tests that leave it as they found it: creating and copying takes its time. */
let shared = ''

beforeAll(async () => {
  shared = realpathSync(temporaryFolder())
  const server = await openEmbeddedPostgres({ folder: shared })
  await query(server.url, 'create table note (text text)')
  await query(server.url, `insert into note values ('kept')`)
  await server.stop()
}, 120_000)

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup()
}, 120_000)

afterAll(() => rm(shared, { recursive: true, force: true }))

describe('a server', { timeout: 120_000 }, () => {
  test('creates its database once and keeps what is in it, under the same url', async () => {
    const folder = join(newFolder(), 'made', '.kerp')
    const lines: string[] = []
    const first = await open(folder, { log: (line) => lines.push(line) })
    expect(first).toMatchObject({ owner: true, version: expect.stringMatching(/^18\.\d+$/) })
    expect(first.url).toMatch(/^postgres:\/\/kerp:[0-9a-f]{48}@127\.0\.0\.1:\d+\/kerp$/)
    await query(first.url, `create table note as select 'kept' as text`)
    const [settings] = await query(
      first.url,
      `select current_setting('fsync') as fsync, current_setting('data_checksums') as checksums,
        current_setting('server_encoding') as encoding, current_setting('listen_addresses') as listen, upper('é') as upper`,
    )
    expect(settings).toEqual({ fsync: 'on', checksums: 'on', encoding: 'UTF8', listen: '127.0.0.1', upper: 'É' })
    await first.stop()
    expect(await readLock(first.dataDir)).toBeUndefined()

    const again = await open(folder)
    expect(again.url).toBe(first.url)
    expect(await query(again.url, 'select text from note')).toEqual([{ text: 'kept' }])
    expect((await stat(join(again.dataDir, 'kerp.password'))).mode & 0o777).toBe(0o600)
    expect(lines).toEqual([
      expect.stringMatching(/^creating a PostgreSQL 18 database in /),
      expect.stringMatching(/^PostgreSQL 18\.\d+ started on port \d+ in \d+ ms/),
    ])
  })

  test('needs its password', async () => {
    const server = await open(shared)
    await expect(query(server.url.replace(/kerp:[0-9a-f]+@/, 'kerp:wrong@'), 'select 1')).rejects.toMatchObject({
      code: '28P01',
    })
  })

  test('takes settings, and refuses those that hold it together', async () => {
    const folder = shared
    await expect(openEmbeddedPostgres({ folder, settings: { port: '5432' } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    })
    await expect(openEmbeddedPostgres({ folder, settings: { work_mem: 'much' } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('work_mem'),
    })
    const server = await open(folder, { settings: { work_mem: '7MB' } })
    expect(await query(server.url, 'show work_mem')).toEqual([{ work_mem: '7MB' }])
  })

  test('takes another port when its own is taken', async () => {
    const folder = copyOfShared()
    const holder = await open(shared)
    await writeFile(join(folder, 'postgres.port'), new URL(holder.url).port)
    const server = await open(folder)
    expect(new URL(server.url).port).not.toBe(new URL(holder.url).port)
    expect(await query(server.url, 'select text from note')).toEqual([{ text: 'kept' }])
  })

  test('is ensured by many at once, and not after it was stopped', async () => {
    const server = await open(shared)
    const { pid } = (await readLock(server.dataDir))!
    await Promise.all([server.ensure(), server.ensure(), server.ensure()])
    expect((await readLock(server.dataDir))?.pid).toBe(pid)
    await Promise.all([server.stop(), server.stop()])
    await expect(server.ensure()).rejects.toMatchObject({ code: 'EMBEDDED_UNAVAILABLE' })
  })
})

describe('several processes on one folder', { timeout: 120_000 }, () => {
  test('the second uses the server of the first, and takes over when the first has gone', async () => {
    const folder = shared
    const first = await open(folder)
    const second = await openElsewhere(folder)
    expect(second.hello).toEqual({ url: first.url, owner: false, dataDir: first.dataDir, version: first.version })
    await first.stop()
    expect(await second.ask('ensure')).toMatchObject({ url: first.url, owner: true })
    expect(await query(first.url, 'select text from note')).toEqual([{ text: 'kept' }])
  })

  test('one that only attached leaves the server running', async () => {
    const folder = shared
    const first = await open(folder)
    const second = await openElsewhere(folder)
    await second.ask('stop')
    expect(await query(first.url, 'select text from note')).toEqual([{ text: 'kept' }])
  })

  test('that start at the same moment, with nothing there yet, end up with one server', async () => {
    const folder = join(newFolder(), '.kerp')
    const both = await Promise.all([openElsewhere(folder), openElsewhere(folder), open(folder)])
    const hellos = [both[0].hello, both[1].hello, both[2]]
    expect(new Set(hellos.map(({ url }) => url)).size).toBe(1)
    expect(hellos.filter(({ owner }) => owner)).toHaveLength(1)
    await query(hellos[0]!.url, 'create table once (id int)')
    expect((await readdir(folder)).filter((name) => name.includes('init'))).toEqual([])
  })

  test.runIf(isLinux)('in other containers: refuses while they live, starts when they have fallen silent', async () => {
    const folder = shared
    const data = join(folder, 'postgres')
    const owner = join(folder, 'postgres.owner')
    const stranger = spawnSleep()
    await writeFile(join(data, 'postmaster.pid'), postmasterPid(stranger, data))
    const place = {
      host: 'other',
      boot: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      processes: 'pid:[1]',
    }
    await writeFile(owner, JSON.stringify({ pid: 1, postmaster: stranger, place }))
    const beating = setInterval(() => beat(owner).catch(() => undefined), 500)
    cleanups.push(() => clearInterval(beating))
    await expect(openEmbeddedPostgres({ folder })).rejects.toMatchObject({
      code: 'DATA_DIR_UNUSABLE',
      message: expect.stringContaining('in use by another container'),
    })
    clearInterval(beating)
    await utimes(owner, new Date(Date.now() - 60_000), new Date(Date.now() - 60_000))
    const server = await open(folder)
    expect(server.owner).toBe(true)
  })
})

describe('after a sudden end', { timeout: 120_000 }, () => {
  test('of the application: the server ends too, and nothing that was committed is lost', async () => {
    const folder = shared
    // It also has a child of its own, which must not hold on to the watchdog's pipe.
    const app = await openElsewhere(folder, {
      also: `spawn('sleep', ['600'], { detached: true, stdio: 'ignore' }).pid`,
    })
    cleanups.push(() => process.kill(app.hello.also!, 'SIGKILL'))
    const { pid } = (await readLock(app.hello.dataDir))!
    await query(app.hello.url, `create table survivor as select 'committed' as text`)
    app.process.kill('SIGKILL')
    await until(() => !isAlive(pid))
    expect(isAlive(app.hello.also!)).toBe(true)

    const server = await open(folder)
    expect(server.url).toBe(app.hello.url)
    expect(await query(server.url, 'select text from survivor')).toEqual([{ text: 'committed' }])
    await query(server.url, 'drop table survivor')
  })

  test('of the application within the first milliseconds: no server stays behind', async () => {
    const folder = shared
    const app = spawnOpener(folder)
    await until(async () => (await readLock(join(folder, 'postgres'))) !== undefined)
    const { pid } = (await readLock(join(folder, 'postgres')))!
    app.kill('SIGKILL')
    await until(() => !isAlive(pid))
  })

  test('of the server: it comes back under the same url', async () => {
    const server = await open(shared)
    const { url } = server
    await query(url, `create table survivor as select 'committed' as text`)
    const { pid } = (await readLock(server.dataDir))!
    process.kill(pid, 'SIGKILL')
    await until(() => !isAlive(pid))
    await Promise.all([server.ensure(), server.ensure()])
    expect(server).toMatchObject({ url, owner: true })
    expect(await query(url, 'select text from survivor')).toEqual([{ text: 'committed' }])
    await query(url, 'drop table survivor')
  })

  test('of the server under a query that outlives it: waits until the remains have gone', async () => {
    const server = await open(shared)
    // A busy server process notices the death of its parent only between statements.
    const busy = query(server.url, `select count(*) from generate_series(1, 8000000) as n where sqrt(n) > 1`).catch(
      () => 'cut off',
    )
    await until(
      async () =>
        (await query(server.url, `select 1 from pg_stat_activity where query like '%sqrt%' and state = 'active'`))
          .length > 1,
    )
    process.kill((await readLock(server.dataDir))!.pid, 'SIGKILL')
    await server.ensure()
    expect(await query(server.url, 'select text from note')).toEqual([{ text: 'kept' }])
    await busy
  })

  test.runIf(isLinux)(
    'of the application and the watchdog: the next one ends the orphan and starts its own',
    async () => {
      const folder = shared
      const app = await openElsewhere(folder)
      const { pid } = (await readLock(app.hello.dataDir))!
      for (const each of watchdogsOf(pid)) process.kill(each, 'SIGKILL')
      await endOf(app.process, () => app.process.kill('SIGKILL'))
      expect(await isServerOf(pid, app.hello.dataDir)).toBe(true)
      const server = await open(folder)
      expect(server).toMatchObject({ url: app.hello.url, owner: true })
      expect((await readLock(server.dataDir))?.pid).not.toBe(pid)
    },
  )

  test('of everything: a lock whose pid is now another process, or that is empty, is no lock', async () => {
    const folder = shared
    const data = join(folder, 'postgres')
    const stranger = spawnSleep()
    await writeFile(join(data, 'postmaster.pid'), postmasterPid(stranger, data))
    const server = await open(folder)
    expect(server.owner).toBe(true)
    await server.stop()
    expect(isAlive(stranger)).toBe(true)

    await writeFile(join(data, 'postmaster.pid'), '')
    await utimes(join(data, 'postmaster.pid'), new Date(0), new Date(0))
    expect((await open(folder)).owner).toBe(true)
  })

  test('of the first start: half a database is not taken for one', async () => {
    const folder = join(newFolder(), '.kerp')
    const app = spawnOpener(folder)
    const half = async () => (await readdir(folder).catch(() => [])).find((name) => name.startsWith('postgres.init-'))
    await until(async () => (await readdir(join(folder, (await half()) ?? 'none', 'data')).catch(() => [])).length > 3)
    app.kill('SIGKILL')
    const work = (await half())!
    const server = await open(folder)
    await query(server.url, 'create table note (text text)')
    await server.stop()

    // Its remains are removed once they are surely nobody's.
    await mkdir(join(folder, work), { recursive: true })
    await utimes(join(folder, work), new Date(0), new Date(0))
    await open(folder)
    expect(await half()).toBeUndefined()
  })

  test('between creating PostgreSQL and creating the database in it', async () => {
    const folder = copyOfShared()
    const server = await open(folder)
    await query(server.url.replace(/kerp$/, 'postgres'), 'drop database kerp')
    await server.stop()
    const again = await open(folder)
    expect(await query(again.url, 'select current_database() as name')).toEqual([{ name: 'kerp' }])
  })

  test('Ctrl-C reaches the application only, which still has its database', async () => {
    const folder = shared
    const app = await openElsewhere(folder, { detached: true })
    process.kill(-app.process.pid!, 'SIGINT') // what a terminal does
    expect(await app.heard('SIGINT')).toMatchObject({ text: 'kept' })
    await app.ask('stop')
    expect(await readLock(app.hello.dataDir)).toBeUndefined()
  })
})

describe('what cannot work is said with what to do', { timeout: 120_000 }, () => {
  const refused = async (folder: string) => {
    const error = await openEmbeddedPostgres({ folder }).catch((thrown: unknown) => thrown)
    if (!isKerpError(error)) throw new Error(`not refused as it should be: ${String(error)}`, { cause: error })
    expect(error.hint).toMatch(/DATABASE_URL|KERP_DATA_DIR|empty database/)
    return `${error.code}: ${error.message}`
  }

  test('a folder nothing can be written to', async () => {
    if (isLinux) expect(await refused('/proc/kerp')).toMatch(/^DATA_DIR_UNUSABLE: .*nothing may be written there/)
    if (isLinux) expect(await refused('/sys')).toMatch(/^DATA_DIR_UNUSABLE: .*(nothing may be written|read-only)/)
    const file = join(newFolder(), 'file')
    await writeFile(file, '')
    expect(await refused(file)).toMatch(/^DATA_DIR_UNUSABLE: .*is a file/)
    expect(await refused(join(file, 'below'))).toMatch(/^DATA_DIR_UNUSABLE: .*is a file/)
  })

  test('a database of another PostgreSQL, none at all, or a damaged one', async () => {
    const folder = copyOfShared()
    const data = join(folder, 'postgres')
    await writeFile(join(data, 'PG_VERSION'), '17\n')
    expect(await refused(folder)).toMatch(/^DATA_DIR_UNUSABLE: .*was made by PostgreSQL 17, and this is PostgreSQL 18/)
    await rm(join(data, 'PG_VERSION'))
    expect(await refused(folder)).toMatch(/^DATA_DIR_UNUSABLE: .*PG_VERSION is missing/)
    await writeFile(join(data, 'PG_VERSION'), '18\n')
    await truncate(join(data, 'global', 'pg_control'), 100)
    expect(await refused(folder)).toMatch(/^DATA_DIR_UNUSABLE: .*may be damaged.*postgres\.log:\n.*pg_control/s)
    await rm(join(data, 'kerp.password'))
    expect(await refused(folder)).toMatch(/^DATA_DIR_UNUSABLE: The password/)
  })

  test('files that are gone while the link to them is still there', async () => {
    const folder = newFolder()
    await symlink(join(folder, 'gone'), join(folder, 'postgres'))
    expect(await refused(folder)).toMatch(/^DATA_DIR_UNUSABLE: PostgreSQL's files were in .*gone, which is gone/)
  })

  test('a machine without binaries', async () => {
    await expect(findPackage('sunos', 'x64')).rejects.toMatchObject({ code: 'EMBEDDED_UNAVAILABLE' })
    const other = process.platform === 'darwin' ? (['linux', 'x64'] as const) : (['darwin', 'arm64'] as const)
    await expect(findPackage(...other)).rejects.toMatchObject({ hint: expect.stringContaining('npm install') })
  })

  test.runIf(isLinux)('binaries whose loader the system lacks, as on Alpine', async () => {
    const native = await brokenPackage()
    await rm(join(native, 'bin', 'postgres')) // it is a link: writing into it would break the real one
    await writeFile(join(native, 'bin', 'postgres'), '#!/no/such/loader\n', { mode: 0o755 })
    const found = { ...(await findPackage()), native }
    await expect(prepareBinaries(found, undefined, newFolder())).rejects.toMatchObject({
      hint: expect.stringContaining('Alpine'),
    })
  })
})

describe('users', { timeout: 120_000 }, () => {
  testAsRoot('root keeps the files in an open folder in place, as an ordinary user', async () => {
    const folder = join(newFolder(), '.kerp')
    const server = await open(folder)
    expect(server.dataDir).toBe(join(realpathSync(folder), 'postgres'))
    expect((await stat(server.dataDir)).uid).not.toBe(0)
    expect((await stat(folder)).uid).toBe(0)
  })

  testAsRoot('root keeps them elsewhere when only root may enter the folder, and forgets them with it', async () => {
    const folder = newFolder(0o700)
    const first = await open(folder)
    expect(first.dataDir).toMatch(new RegExp(`^${systemFolder}/data-`))
    expect(await readlink(join(folder, 'postgres'))).toBe(first.dataDir)
    await query(first.url, `create table note as select 'kept' as text`)
    await first.stop()
    const again = await open(folder)
    expect(again.dataDir).toBe(first.dataDir)
    expect(await query(again.url, 'select text from note')).toEqual([{ text: 'kept' }])
    await again.stop()
    await rm(folder, { recursive: true })
    expect((await open(folder)).dataDir).not.toBe(first.dataDir)
  })

  testAsRoot('root gives restored files back to the user PostgreSQL runs as', async () => {
    const folder = copyOfShared()
    execFileSync('chown', ['-R', '0:0', join(folder, 'postgres')])
    const server = await open(folder)
    expect(await query(server.url, 'select text from note')).toEqual([{ text: 'kept' }])
  })

  testAsStranger('an ordinary user runs it as themselves', async () => {
    const folder = newFolder(0o700)
    chownSync(folder, nobody.uid, nobody.gid)
    const app = await openElsewhere(folder, nobody)
    expect(app.hello.dataDir).toBe(join(realpathSync(folder), 'postgres'))
    expect((await stat(app.hello.dataDir)).uid).toBe(nobody.uid)
    expect(await query(app.hello.url, 'select 1 as one')).toEqual([{ one: 1 }])
    await app.ask('stop')
    // Later as root: it goes on as the user whose files they are.
    const server = await open(folder)
    expect(server.url).toBe(app.hello.url)
  })

  testAsRoot('binaries only root can reach, without their links, are made reachable once', async () => {
    const native = await brokenPackage()
    const found = { ...(await findPackage()), native }
    chmodSync(join(native, '..'), 0o700)
    const account = { name: 'nobody', ...nobody }
    const used = await prepareBinaries(found, account, '')
    expect(used).toMatch(new RegExp(`^${systemFolder}/postgresql-18`))
    expect(await prepareBinaries(found, account, '')).toBe(used)

    const base = newFolder()
    const [one, other] = await Promise.all([privateCopy(found, base, ok), privateCopy(found, base, ok)])
    expect(one).toBe(other)
    expect(await readdir(base)).toHaveLength(1)
    await rm(join(one, 'bin', 'initdb')) // as sweepers of temporary folders do
    await privateCopy(found, base, ok)
    expect(await readdir(join(one, 'bin'))).toContain('initdb')
  })

  test('an ordinary user whose packages are read-only and lack the links uses a copy', async () => {
    const native = await brokenPackage()
    const found = { ...(await findPackage()), native: join(native, 'none') }
    await expect(prepareBinaries(found, undefined, newFolder())).rejects.toMatchObject({ code: 'EMBEDDED_UNAVAILABLE' })
    expect(await prepareBinaries({ ...found, native }, undefined, newFolder())).toBe(native)
    expect(await readlink(join(native, 'lib', 'libpq.so.5'))).toMatch(/^libpq\.so\.5\./)
  })

  // It stands in for Windows, which starts the server with pg_ctl.
  testAsStranger('the watchdog for Windows starts a server, and ends it with the pipe', async () => {
    const folder = newFolder(0o700)
    chownSync(folder, nobody.uid, nobody.gid)
    const app = await openElsewhere(folder, nobody)
    await app.ask('stop')
    const { dataDir, url } = app.hello
    const settings = await settingsFor(Number(new URL(url).port), {})
    const { native } = await findPackage()
    const account = { name: 'nobody', ...nobody }
    const launched = launch({ native, dataDir, log: join(folder, 'postgres.log'), settings, account }, true)
    const pid = (await launched.pid)!
    expect(await isServerOf(pid, dataDir)).toBe(true)
    expect(await query(url, 'select 1 as one')).toEqual([{ one: 1 }])
    launched.end()
    expect(await launched.exited).toEqual({ code: 0 })
    await until(() => !isAlive(pid))
  })
})

const ok = () => Promise.resolve(true)

function temporaryFolder(mode = 0o755): string {
  const folder = mkdtempSync(join(tmpdir(), 'kerp-embedded-'))
  chmodSync(folder, mode)
  return folder
}

/** Removed after the test, with what root keeps for it elsewhere. */
function newFolder(mode = 0o755): string {
  const folder = temporaryFolder(mode)
  cleanups.push(() => rm(folder, { recursive: true, force: true }))
  return folder
}

function copyOfShared(): string {
  const folder = newFolder()
  execFileSync('cp', ['-a', join(shared, 'postgres'), folder])
  return realpathSync(folder)
}

async function open(folder: string, options: { log?: (line: string) => void; settings?: Record<string, string> } = {}) {
  const server: EmbeddedPostgres = await openEmbeddedPostgres({ folder, ...options })
  cleanups.push(async () => {
    await server.stop()
    if (server.dataDir.startsWith(systemFolder)) await rm(server.dataDir, { recursive: true, force: true })
  })
  return server
}

interface Hello {
  url: string
  owner: boolean
  dataDir: string
  version: string
  also?: number
}

function spawnOpener(folder: string, options: { uid?: number; gid?: number; detached?: boolean; also?: string } = {}) {
  const { also, ...spawnOptions } = options
  const program = `
    import { spawn } from 'node:child_process'
    import { openEmbeddedPostgres } from ${JSON.stringify(moduleUrl)}
    const server = await openEmbeddedPostgres({ folder: ${JSON.stringify(folder)} })
    const also = ${also ?? 'undefined'}
    const tell = (more) => process.send({ url: server.url, owner: server.owner, dataDir: server.dataDir, version: server.version, ...more })
    process.on('SIGINT', async () => {
      const { Client } = await import(${JSON.stringify(import.meta.resolve?.('pg') ?? 'pg')})
      const client = new Client(server.url)
      await client.connect()
      const { rows } = await client.query('select pg_sleep(0.3), text from note')
      await client.end()
      process.send({ heard: 'SIGINT', text: rows[0].text })
    })
    process.on('message', async (what) => {
      await server[what]()
      tell({ did: what })
      if (what === 'stop') process.disconnect()
    })
    tell({ also })
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    ...spawnOptions,
    cwd: '/',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  cleanups.push(() => endOf(child, () => child.kill('SIGKILL')))
  return child
}

/** Another process of ours, which has opened the folder. */
async function openElsewhere(folder: string, options: Parameters<typeof spawnOpener>[1] = {}) {
  const child = spawnOpener(folder, options)
  const hello = await messageFrom<Hello>(child, () => true)
  // Its server ends shortly after it, and needs its files until then.
  cleanups.push(async () => {
    const pid = (await readLock(hello.dataDir))?.pid
    await endOf(child, () => child.kill('SIGKILL'))
    if (pid !== undefined && hello.owner) await until(() => !isAlive(pid))
  })
  return {
    process: child,
    hello,
    ask(what: 'ensure' | 'stop') {
      const answer = messageFrom<Hello>(child, (message) => message['did'] === what)
      child.send(what)
      return answer
    },
    heard: (what: string) => messageFrom<{ text: string }>(child, (message) => message['heard'] === what),
  }
}

function messageFrom<T>(child: ChildProcess, fits: (message: Record<string, unknown>) => boolean): Promise<T> {
  return new Promise((resolve, reject) => {
    child.on('message', (message) => fits(message as Record<string, unknown>) && resolve(message as T))
    child.once('exit', (code, signal) => reject(new Error(`the process ended: ${signal ?? code}`)))
  })
}

async function endOf(child: ChildProcess, action: () => void): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  action()
  await ended
}

/** A process that is not PostgreSQL. */
function spawnSleep(): number {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' })
  cleanups.push(() => endOf(child, () => child.kill('SIGKILL')))
  return child.pid!
}

function postmasterPid(pid: number, data: string): string {
  return [pid, data, Math.floor(Date.now() / 1000), 1, '', '127.0.0.1', '  1234567         1', 'ready   ', ''].join(
    '\n',
  )
}

/** The shell above the server, and its second half that watches the pipe. */
function watchdogsOf(server: number): number[] {
  const list = execFileSync('ps', ['-e', '-o', 'pid=,ppid=,sid=,comm='], { encoding: 'utf8' })
  const rows = list
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
  const session = rows.find(([pid]) => Number(pid) === server)?.[2]
  return rows.filter(([, , sid, name]) => sid === session && name === 'sh').map(([pid]) => Number(pid))
}

/** The real files, as hard links where that works, but without the symbolic links among them. */
async function brokenPackage(): Promise<string> {
  const native = join(newFolder(), 'native')
  const real = (await findPackage()).native
  try {
    execFileSync('cp', ['-al', real, native], { stdio: 'ignore' })
  } catch {
    await rm(native, { recursive: true, force: true })
    execFileSync('cp', ['-a', real, native])
  }
  execFileSync('find', [join(native, 'lib'), '-type', 'l', '-delete'])
  return native
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client(url)
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end().catch(() => undefined)
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 60_000
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`it never came to be: ${condition.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
