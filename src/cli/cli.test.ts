import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { emit } from '../engine/outbox/emit.ts'
import { EmployeeCreated } from '../modules/personnel/index.ts'
import { newId } from '../kernel/ids.ts'
import type { TestDatabase } from '../testing/postgres.ts'
import { testDatabase } from '../testing/postgres.ts'

const main = new URL('./main.ts', import.meta.url).pathname

let folder: string
let home: TestDatabase

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kerp-cli-'))
  home = await testDatabase()
})
afterAll(async () => {
  await home.drop()
  await rm(folder, { recursive: true, force: true })
})

/** Runs the command line as a user would, in an empty folder and with nothing set but what is given. */
function start(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { PATH } = process.env
  const child = spawn(process.execPath, [main, ...args], {
    cwd: folder,
    env: { PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const got = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (got.stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (got.stderr += chunk.toString()))
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, ...got }))
  })
  return { child, got, ended }
}

const kerp = (args: readonly string[], env?: NodeJS.ProcessEnv) => start(args, env).ended
const kerpHere = (...args: string[]) => kerp(args, { DATABASE_URL: home.url })

async function freePort(): Promise<string> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return String(port)
}

describe('usage', () => {
  test.each([[['--help']], [['help']], [['-h']]])('%o tells all commands', async (args) => {
    const { code, stdout } = await kerp(args)
    expect(code).toBe(0)
    for (const name of ['start', 'migrate', 'events', 'outbox', 'dead', 'doctor', 'config'])
      expect(stdout).toContain(`  ${name} `)
  })

  test.each([
    'start',
    'migrate',
    'events tail',
    'events show',
    'outbox',
    'dead list',
    'dead show',
    'dead redrive',
    'dead discard',
    'doctor',
    'config',
  ])('%s --help has options and examples', async (name) => {
    const { code, stdout } = await kerp([...name.split(' '), '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`Usage: kerp ${name}[^]*Options:[^]*Examples:`))
  })

  test.each([
    [[], 'Usage'],
    [['strat'], "did you mean 'start'?"],
    [['events'], 'events tail'],
    [['events', 'tial'], "did you mean 'tail'?"],
    [['events', 'show'], 'needs <eventId>'],
    [['outbox', 'now'], "does not know what to do with 'now'"],
    [['outbox', '--jsn'], '--jsn'],
    [['start', '--rate', '3'], '--demo'],
    [['start', '--demo', '--rate', 'x'], '--rate'],
    [['start', '--port'], '--port'],
    [['dead', 'list', '--state', 'gone'], '--state'],
    [['dead', 'redrive'], '--all'],
    [['dead', 'redrive', '7'], "'7' is not the id"],
    [['dead', 'discard', '--all'], '--yes'],
  ])('%o is wrong usage: 2, told on standard error', async (args, told) => {
    const { code, stdout, stderr } = await kerp(args)
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toContain(told)
  })

  test('--version', async () => {
    expect(await kerp(['--version'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
  })
})

describe('settings', () => {
  test('are listed with where each comes from', async () => {
    const { code, stdout } = await kerp(['config', '--json'], {
      KERP_PORT: '3001',
      DATABASE_URL: 'postgres://a:geheim@b/c',
    })
    expect(code).toBe(0)
    expect(stdout).not.toContain('geheim')
    expect(JSON.parse(stdout)).toContainEqual(
      expect.objectContaining({ name: 'KERP_PORT', value: '3001', from: 'environment' }),
    )
  })

  test('a wrong one fails by name, with a code and without a stack', async () => {
    const { code, stderr } = await kerp(['outbox'], { KERP_PORT: 'abc' })
    expect(code).toBe(1)
    expect(stderr).toMatch(/KERP_PORT[^]*→[^]*\(CONFIG_INVALID\)/)
    expect(stderr).not.toContain('    at ')
  })

  test('with LOG_LEVEL=debug there is a stack', async () => {
    expect((await kerp(['outbox'], { KERP_PORT: 'abc', LOG_LEVEL: 'debug' })).stderr).toContain('    at ')
  })

  test('looking at a folder without data creates none', async () => {
    const { code, stderr } = await kerp(['outbox'])
    expect([code, stderr]).toEqual([1, expect.stringContaining('no database')])
  })
})

describe('with a database', () => {
  test('plans, migrates and shows', async () => {
    expect(await kerpHere('outbox')).toMatchObject({ code: 1, stderr: expect.stringContaining('kerp migrate') })
    expect((await kerpHere('migrate', '--plan')).stdout).toContain('would run personnel/001')
    expect((await kerpHere('migrate')).stdout).toContain('ran payroll/001')
    expect(JSON.parse((await kerpHere('migrate', '--json')).stdout)).toEqual({ ran: [] })
    expect(JSON.parse((await kerpHere('outbox', '--json')).stdout)).toMatchObject({
      outbox: { rows: 0 },
      deadLetters: 0,
    })

    const database = await home.open()
    const data = { employeeId: newId(), name: '김', annualSalary: 1n, joinedOn: '2026-01-01' }
    const eventId = await database.transaction((tx) => emit(tx, EmployeeCreated, data))
    await database.close()
    expect((await kerpHere('events', 'tail')).stdout).toContain(eventId)
    expect((await kerpHere('events', 'tail', '--type', 'other.type')).stdout).toBe('')
    expect(JSON.parse((await kerpHere('events', 'show', eventId, '--json')).stdout)).toMatchObject({
      eventId,
      data: { name: '김' },
    })
    expect((await kerpHere('events', 'show', eventId)).stdout).toContain('employee.created')
    expect(await kerpHere('events', 'show', newId())).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('NOT_FOUND'),
    })
    expect((await kerpHere('dead', 'list')).stdout).toBe('none\n')
    expect((await kerpHere('dead', 'redrive', '--all', '--json')).stdout).toContain('"redriven": 0')
    expect((await kerpHere('dead', 'discard', newId(), '--yes')).code).toBe(1)
  }, 60_000)

  test('the doctor says what is well and what is not', async () => {
    const KERP_PORT = await freePort()
    const { code, stdout } = await kerp(['doctor', '--json'], { DATABASE_URL: home.url, KERP_PORT })
    const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: { check: string; state: string }[] }
    expect({ code, ok }).toEqual({ code: 0, ok: true })
    expect(findings.find(({ check }) => check === 'database')).toMatchObject({
      state: 'OK',
      message: expect.stringContaining('PostgreSQL'),
    })
    const wrong = Object.assign(new URL(home.url), { pathname: '/not_there' }).toString()
    const bad = await kerp(['doctor'], { DATABASE_URL: wrong, KERP_PORT })
    expect(bad).toMatchObject({ code: 1, stdout: expect.stringMatching(/FAIL +database/) })
  })

  test('a reader that has seen enough is no failure', async () => {
    const { child, ended } = start(['config'], {})
    child.stdout.destroy()
    expect((await ended).code).toBe(0)
  })
})

describe('start', () => {
  test('runs until a signal, hires in the demo, and ends with 0', async () => {
    const port = await freePort()
    const { child, got, ended } = start(['start', '--port', port, '--demo', '--rate', '50'], { DATABASE_URL: home.url })
    while (!got.stdout.includes('ready at')) await new Promise((resolve) => setTimeout(resolve, 20))
    const address = `http://127.0.0.1:${port}`
    let hired = 0
    while (hired < 3) {
      const page = (await (await fetch(`${address}/api/v1/payroll/accounts`)).json()) as { items: object[] }
      hired = page.items.length
    }
    child.kill('SIGTERM')
    const { code, stderr } = await ended
    expect(code).toBe(0)
    for (const line of stderr.trim().split('\n')) expect(JSON.parse(line)).toMatchObject({ level: 30 })
  }, 30_000)

  test('a taken port is told with what to do, and nothing is left behind', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => taken.once('listening', resolve))
    const port = String((taken.address() as AddressInfo).port)
    const { code, stderr } = await kerp(['start'], { KERP_PORT: port })
    taken.close()
    expect(code).toBe(1)
    expect(stderr).toMatch(/PORT_IN_USE/)
    expect(stderr).toContain(`KERP_PORT=${Number(port) + 1} npm start`)
  })

  test('a wrong role is told', async () => {
    expect(await kerp(['start', '--role', 'boss'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("'boss' is no role"),
    })
  })
})
