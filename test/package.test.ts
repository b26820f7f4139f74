import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'

/** The package as its users get it: packed, installed in a project of its own, type-checked and run from there. */

const run = promisify(execFile)
const root = resolve(import.meta.dirname, '..')
let project: string

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), 'kerp-package-'))
  const modules = join(project, 'node_modules')
  await mkdir(join(modules, 'kerp'), { recursive: true })
  await run('npm', ['pack', '--pack-destination', project, '--silent'], { cwd: root })
  const [tarball] = (await readdir(project)).filter((name) => name.endsWith('.tgz'))
  await run('tar', ['-xzf', join(project, tarball!), '-C', join(modules, 'kerp'), '--strip-components=1'])
  // Only what the package declares is there to be found.
  const manifest = JSON.parse(await readFile(join(modules, 'kerp/package.json'), 'utf8'))
  const declared = { ...manifest.dependencies, ...manifest.optionalDependencies }
  for (const name of [...Object.keys(declared), 'typescript', '@types/node', '@types/pg']) await link(modules, name)
}, 120_000)

afterAll(() => rm(project, { recursive: true, force: true }))

async function link(modules: string, name: string): Promise<void> {
  const target = join(root, 'node_modules', name)
  await mkdir(dirname(join(modules, name)), { recursive: true })
  await symlink(target, join(modules, name))
}

const program = `
import { z } from 'zod'
import { defineEvent, emit, engineMigrations, lifeOfEvent, migrate, on, openDatabase, routeEvents, startHints, startWorker } from 'kerp'
import { postgresTransport } from 'kerp/transports/postgres'
import { memoryTransport } from 'kerp/transports/memory'

const Greeted = defineEvent('person.greeted', { data: z.object({ name: z.string() }) })
const database = await openDatabase({ url: process.env['DATABASE_URL']! })
await migrate(database, [engineMigrations])
const hints = await startHints(database)
await routeEvents(database, 'database')
const { promise: heard, resolve } = Promise.withResolvers<string>()
const greeted = on(Greeted, { name: 'listener', handle: ({ data }) => resolve(data.name) })
const worker = await startWorker({ database, transport: postgresTransport({ database, hints }), subscriptions: [greeted] })
const id = await database.transaction((tx) => emit(tx, Greeted, { name: '세종' }))
console.log(await heard, memoryTransport().name)
await worker.drain()
console.log((await lifeOfEvent(database, id))?.consumers[0]?.state)
await hints.close()
await database.close()
`

it('is type-checked and runs from its tarball', async () => {
  await writeFile(join(project, 'package.json'), JSON.stringify({ type: 'module' }))
  await writeFile(join(project, 'main.ts'), program)
  const options = { module: 'nodenext', target: 'es2024', lib: ['es2025'], strict: true, types: ['node'] }
  await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, include: ['main.ts'] }))
  const compiled = await run('tsc', ['-p', project], { cwd: project }).catch((error) => error)
  expect(compiled.stdout).toBe('')

  const { testDatabase } = await import('../src/testing/postgres.ts')
  const database = await testDatabase()
  try {
    const env = { ...process.env, DATABASE_URL: database.url }
    const { stdout } = await run(process.execPath, ['main.js'], { cwd: project, env })
    expect(stdout).toBe('세종 memory\ndone\n')
  } finally {
    await database.drop()
  }
}, 120_000)

it('brings the command', async () => {
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  const bin = join(project, 'node_modules/kerp', manifest.bin.kerp)
  const { stdout } = await run(process.execPath, [bin, '--version'])
  expect(stdout).toContain(manifest.version)
  const help = await run(process.execPath, [bin, 'start', '--help'])
  expect(help.stdout).toContain('--role')
})

it('is packed without tests and sources', async () => {
  const files = await readdir(join(project, 'node_modules/kerp'), { recursive: true })
  expect(files.filter((name) => /\.test\.|(^|\/)src\/|[^d]\.ts$/.test(name))).toEqual([])
  expect(files.filter((name) => name.endsWith('.sql')).length).toBeGreaterThan(2)
})
