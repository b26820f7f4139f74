import { appendFile, cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { migrate } from '../../src/engine/database/migrate.ts'
import { engineMigrations } from '../../src/engine/engine.ts'
import { isConnectionError } from '../../src/engine/database/connection.ts'
import { emit } from '../../src/engine/outbox/emit.ts'
import { fixed } from '../../src/engine/worker/retry.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import { sleep, systemClock } from '../../src/kernel/clock.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Engine } from './engine.ts'
import { Asked, openEngine, takeEffect } from './engine.ts'
import { killablePostgres } from './postgres.ts'

const handler = (name: string) => on(Asked, { name, handle: ({ data }, tx) => takeEffect(tx, name, data) })
const caller = (name: string) =>
  on(Asked, {
    name,
    lease: '2s',
    perform: async ({ data }) => data.number,
    commit: (_, tx, { data }) => takeEffect(tx, name, data),
  })

test('a pool that is used up says so, and recovers', async () => {
  await using engine = await openEngine([], { max: 2, acquireTimeoutMs: 200, declaredOnly: true })
  const { database } = engine
  const held = Promise.withResolvers<void>()
  const holders = [1, 2].map(() => database.transaction(() => held.promise))
  await waitFor(() => database.pool.total === 2 && database.pool.idle === 0)
  const refused = { code: 'POOL_EXHAUSTED', hint: expect.stringContaining('KERP_POOL') }
  await expect(database.sql`select 1`).rejects.toMatchObject(refused)
  await expect(database.transaction((tx) => tx.sql`select 1`)).rejects.toMatchObject(refused)
  held.resolve()
  await Promise.all(holders)
  expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
})

test('handlers that use up the pool beside their transaction cost only themselves', async () => {
  let engine: Engine
  const greedy = on(Asked, {
    name: 'chaos.greedy',
    attempts: 2,
    retry: fixed(20),
    deadline: '2s',
    async handle({ data }, tx) {
      if (data.act === 'greedy') await Promise.all([1, 2, 3, 4].map(() => engine.database.sql`select pg_sleep(0.5)`))
      await takeEffect(tx, 'chaos.greedy', data)
    },
  })
  await using opened = await openEngine([greedy], { max: 3, acquireTimeoutMs: 200 })
  engine = opened
  await engine.ask({}, { act: 'greedy' }, {})
  await engine.settled()
  expect((await engine.effects()).map(({ number }) => number).sort()).toEqual([0, 2])
  expect(await engine.deadLetters()).toMatchObject([{ message: expect.stringMatching(/connection became free/) }])
})

test('Postgres killed under load: nothing is lost, nothing is done twice', { timeout: 60_000 }, async () => {
  await using postgres = await killablePostgres()
  await using engine = await openEngine([handler('chaos.handler'), caller('chaos.caller')], {
    url: postgres.url,
    revive: () => postgres.revive(),
  })
  let isOver = false
  const emitted = emitUntil(engine, () => isOver)
  for (let kill = 0; kill < 2; kill++) {
    const before = (await readEffects(engine)).length
    await postgres.kill()
    await waitFor(async () => (await readEffects(engine)).length > before + 200, {
      timeoutMs: 20_000,
      what: 'work goes on',
    })
  }
  isOver = true
  const { sure, unsure } = await emitted
  await engine.settled(20_000)
  for (const consumer of ['chaos.handler', 'chaos.caller']) {
    const numbers = (await engine.effects(consumer)).map(({ number }) => number)
    expect(numbers.length, 'once each').toBe(new Set(numbers).size)
    expect([...sure].filter((number) => !numbers.includes(number))).toEqual([])
    expect(numbers.filter((number) => !sure.has(number) && !unsure.has(number))).toEqual([])
  }
  expect(await engine.deadLetters()).toEqual([])
})

const readEffects = async (engine: Engine) => engine.effects('chaos.handler')

/** Emits from several sides; an answer that was lost with its connection leaves open whether it was committed. */
async function emitUntil(
  { database }: Engine,
  isOver: () => boolean,
): Promise<{ sure: Set<number>; unsure: Set<number> }> {
  const sure = new Set<number>()
  const unsure = new Set<number>()
  let next = 0
  async function emitter(): Promise<void> {
    while (!isOver()) {
      const number = next++
      try {
        await database.transaction((tx) => emit(tx, Asked, { key: `key-${number % 50}`, number, act: 'do' }))
        sure.add(number)
      } catch (error) {
        if (!isConnectionError(error)) throw error
        unsure.add(number)
        await sleep(systemClock, 20)
      }
    }
  }
  await Promise.all(Array.from({ length: 3 }, emitter))
  return { sure, unsure }
}

test('a migration that was edited after it ran is named, with what to do', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kerp-migrations-'))
  try {
    await using engine = await openEngine([], { declaredOnly: true })
    await cp(engineMigrations.folder, folder, { recursive: true })
    const copy = { module: 'engine', folder: pathToFileURL(`${folder}/`) }
    expect(await migrate(engine.database, [copy])).toEqual([])
    await appendFile(join(folder, '001-engine.sql'), '\n-- one more thought\n')
    await expect(migrate(engine.database, [copy])).rejects.toMatchObject({
      code: 'MIGRATION_CHANGED',
      message: expect.stringContaining('engine/001-engine.sql'),
      hint: expect.stringContaining('new migration'),
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
