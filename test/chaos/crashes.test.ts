import { afterEach, describe, expect, test } from 'vitest'
import { waitFor } from '../../src/testing/wait.ts'
import { openStage, readCalls, startActor } from './actors.ts'
import type { Stage } from './actors.ts'
import type { Effect } from './engine.ts'
import type { Process } from './processes.ts'
import { endAll } from './processes.ts'

afterEach(endAll)

const numbersOf = (effects: readonly Effect[]) => effects.map(({ number }) => number).sort((a, b) => a - b)

describe('a handler that ends its process', () => {
  test.each(['exit', 'exit-later'])('by process.exit (%s), does not: its event dies alone', async (act) => {
    await using stage = await openStage('chaos.actor')
    const actor = await startActor(stage)
    await stage.ask({ act: 'do' }, { act }, { act: 'do' })
    await stage.settled()
    expect(numbersOf(await stage.effects('chaos.actor'))).toEqual([0, 2])
    expect(await stage.deadLetters()).toMatchObject([
      { consumer: 'chaos.actor', reason: 'attempts', attempts: 3, error: [{ code: 'HANDLER_EXITED' }] },
    ])
    expect(actor.ending()).toBeUndefined()
  })

  test('by process.exit, when it waited for its turn behind another of its key', async () => {
    await using stage = await openStage('chaos.actor')
    const actor = await startActor(stage)
    await stage.ask({ key: 'one', act: 'do' }, { key: 'one', act: 'exit' }, { act: 'do' })
    expect(await Promise.race([stage.settled(), actor.ended])).toBeUndefined()
    expect(numbersOf(await stage.effects('chaos.actor'))).toEqual([0, 2])
    expect(await stage.deadLetters()).toMatchObject([{ error: [{ code: 'HANDLER_EXITED' }] }])
  })

  test(
    'for real, every time, is not tried for ever and does not take its neighbours with it',
    { timeout: 60_000 },
    async () => {
      await using stage = await openStage('chaos.actor')
      await stage.ask({ act: 'do' }, { act: 'crash' }, { act: 'do' })
      const crashes = await restartUntilSettled(stage, 8)
      expect(crashes).toBeLessThan(8)
      expect(numbersOf(await stage.effects('chaos.actor'))).toEqual([0, 2])
      expect(await stage.deadLetters()).toMatchObject([{ error: [{ code: 'HANDLER_CRASHED' }] }])
    },
  )

  test('in an outside call, every time, is not tried for ever', { timeout: 60_000 }, async () => {
    await using stage = await openStage('chaos.caller')
    await stage.ask({ act: 'do' }, { act: 'call-crash' }, { act: 'do' })
    const crashes = await restartUntilSettled(stage, 8)
    expect(crashes).toBeLessThan(8)
    expect(await stage.deadLetters()).toMatchObject([{ error: [{ code: 'HANDLER_CRASHED' }] }])
    expect(numbersOf(await stage.effects('chaos.caller'))).toEqual([0, 2])
  })
})

test('a statement long after its handler returned ends neither the process nor in the tables', async () => {
  await using stage = await openStage('chaos.actor')
  const actor = await startActor(stage)
  await stage.ask({ act: 'leak-later' })
  await actor.says(/TRANSACTION_CLOSED/)
  await stage.ask({ number: 7, act: 'do' })
  await stage.settled()
  expect(numbersOf(await stage.effects())).toEqual([0, 7])
  expect(actor.ending()).toBeUndefined()
})

test('a process that is killed between an outside call and its effect: called again with the same key, one effect', async () => {
  await using stage = await openStage('chaos.caller')
  const first = await startActor(stage)
  const [id] = await stage.ask({ number: 5, act: 'call-crash-once' })
  expect(await first.ended).toMatchObject({ signal: 'SIGKILL' })
  await startActor(stage)
  await stage.settled()
  expect(await readCalls(stage)).toEqual([
    { number: 5, key: id },
    { number: 5, key: id },
  ])
  expect(numbersOf(await stage.effects('chaos.caller'))).toEqual([5])
})

test('SIGTERM lets what is under way finish, and loses nothing', async () => {
  await using stage = await openStage('chaos.actor', 'chaos.caller')
  const first = await startActor(stage)
  await stage.ask(...Array.from({ length: 20 }, (_, number) => ({ number, act: number % 2 ? 'slow' : 'call-slow' })))
  await waitFor(async () => (await readCalls(stage)).length === 20)
  expect(await first.kill('SIGTERM')).toMatchObject({ code: 0, signal: null })
  await startActor(stage)
  await stage.settled()
  const all = Array.from({ length: 20 }, (_, number) => number)
  expect(numbersOf(await stage.effects('chaos.actor'))).toEqual(all)
  expect(numbersOf(await stage.effects('chaos.caller'))).toEqual(all)
  // Its call was under way and was finished, so nobody called again.
  expect(await readCalls(stage)).toHaveLength(20)
})

describe('three processes that compete keep the order within every key', () => {
  const keys = 40
  const each = 50

  test.each([
    ['through retries', 'flaky', 100],
    ['through commits that are refused', 'swallow-once', 40],
    ['through handlers that hang', 'hang-once', 3],
  ])('%s', { timeout: 60_000 }, async (_, act, bad) => {
    await using stage = await openStage('chaos.actor')
    await Promise.all([startActor(stage), startActor(stage), startActor(stage)])
    const every = Math.floor((keys * each) / bad)
    for (let first = 0; first < each; first += 5) {
      const slice = Array.from({ length: 5 * keys }, (_none, index) => ({
        key: `key-${index % keys}`,
        number: first + Math.floor(index / keys),
        act: (first * keys + index) % every === 7 % every ? act : 'do',
      }))
      await stage.ask(...slice)
    }
    await stage.settled(40_000)
    const inOrder = Array.from({ length: each }, (_none, number) => number)
    const byKey = Map.groupBy(await stage.effects('chaos.actor'), ({ key }) => key)
    expect(byKey.size).toBe(keys)
    for (const effects of byKey.values()) expect(effects.map(({ number }) => number)).toEqual(inOrder)
    expect(await stage.deadLetters()).toEqual([])
  })
})

/** As a service manager would: starts it again whenever it has ended. Returns how often it had. */
async function restartUntilSettled(stage: Stage, atMost: number): Promise<number> {
  for (let crashes = 0; ; crashes++) {
    if (crashes === atMost) return crashes
    const actor = await startOrCrash(stage)
    if (actor === undefined) continue
    const first = await Promise.race([actor.ended, stage.settled(10_000).then(() => 'settled' as const)])
    if (first === 'settled') return crashes
  }
}

/** It may be gone before it could say that it is ready. */
async function startOrCrash(stage: Stage): Promise<Process | undefined> {
  return startActor(stage).catch(() => undefined)
}
