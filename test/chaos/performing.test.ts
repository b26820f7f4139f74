import { describe, expect, test } from 'vitest'
import { fixed, notNow } from '../../src/engine/worker/retry.ts'
import { redriveDeadLetters } from '../../src/engine/worker/dead-letters.ts'
import type { PerformOptions } from '../../src/engine/worker/subscription.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Engine, EngineOptions } from './engine.ts'
import { Asked, openEngine, takeEffect } from './engine.ts'
import { freePort } from './processes.ts'

const consumer = 'chaos.caller'

type Options = Partial<PerformOptions<Asked, number>>

/** A consumer that calls the outside and counts how often it did, by the number of the event. */
function callerWith(calls: number[], { perform, ...options }: Options = {}) {
  return on(Asked, {
    name: consumer,
    attempts: 3,
    retry: fixed(20),
    perform: async (event, call) => {
      calls.push(event.data.number)
      return (await perform?.(event, call)) ?? event.data.number
    },
    commit: (_, tx, event) => takeEffect(tx, consumer, event.data),
    ...options,
  })
}

const openCaller = (calls: number[], options?: Options, engine?: EngineOptions) =>
  openEngine([callerWith(calls, options)], engine)

/** What is kept of answers whose effects are made is of no use to anybody. */
async function expectNothingKept({ database }: Engine): Promise<void> {
  expect(await database.sql`select * from kerp.perform_results`).toEqual([])
}

test('a commit that fails does not call the outside again', async () => {
  const calls: number[] = []
  let fails = 2
  await using engine = await openCaller(calls, {
    async commit(_, tx, event) {
      await takeEffect(tx, consumer, event.data)
      if (event.data.number === 1 && fails-- > 0) throw new Error('the table is locked')
    },
  })
  await engine.ask({}, {}, {})
  await engine.settled()
  expect(calls.sort()).toEqual([0, 1, 2])
  expect((await engine.effects()).map(({ number }) => number).sort()).toEqual([0, 1, 2])
  await expectNothingKept(engine)
})

test('a commit that hangs does not hold up the others for ever', async () => {
  const hung = Promise.withResolvers<void>()
  await using engine = await openCaller([], {
    deadline: '300ms',
    commit(_, tx, event) {
      if (event.data.act !== 'hang') return takeEffect(tx, consumer, event.data)
      hung.resolve()
      return new Promise(() => {})
    },
  })
  await engine.ask({ act: 'hang' })
  await hung.promise
  await engine.ask({ key: 'two', number: 2 }, { key: 'three', number: 3 })
  await waitFor(async () => (await engine.effects()).length === 2, { what: 'the others are done' })
})

test.each([
  ['a text that Postgres cannot store', 'zero \u0000 inside'],
  ['half an emoji', '😀'.slice(0, 1)],
])('a call that fails with %s dies alone', async (_, words) => {
  await using engine = await openCaller([], {
    async perform({ data }) {
      if (data.act === 'bad') throw new Error(words)
      return data.number
    },
  })
  await engine.ask({}, { act: 'bad' }, {})
  await engine.settled()
  expect((await engine.effects()).map(({ number }) => number).sort()).toEqual([0, 2])
  expect(await engine.deadLetters()).toMatchObject([{ reason: 'attempts', attempts: 3 }])
})

test('a commit that meets another server that is down dies alone', async () => {
  const calls: number[] = []
  const port = await freePort()
  await using engine = await openCaller(calls, {
    async commit(_, tx, event) {
      if (event.data.act === 'fetch') await fetch(`http://127.0.0.1:${port}/`)
      await takeEffect(tx, consumer, event.data)
    },
  })
  await engine.ask({}, { act: 'fetch' }, {})
  await engine.settled()
  expect((await engine.effects()).map(({ number }) => number).sort()).toEqual([0, 2])
  expect(await engine.deadLetters()).toMatchObject([{ reason: 'attempts', attempts: 3 }])
})

test('not now spends no attempt', async () => {
  const attempts: number[] = []
  await using engine = await openCaller([], {
    attempts: 2,
    async perform({ attempt, data }) {
      attempts.push(attempt)
      if (attempts.length <= 4) throw notNow(20)
      return data.number
    },
  })
  await engine.ask({})
  await engine.settled()
  expect(attempts).toEqual([1, 1, 1, 1, 1])
  expect(await engine.effects()).toHaveLength(1)
})

describe('a lease that is lost', () => {
  /** As for a process that was frozen so long that everybody took it for dead. */
  async function expire({ database, worker }: Engine): Promise<void> {
    // Itself it must not take it again: that is for the other.
    worker?.pause()
    await database.sql`update kerp.deliveries set due_at = now() - interval '1 second'`
  }

  test('commits once, although both have called', async () => {
    const calls: number[] = []
    const answers = [Promise.withResolvers<number>(), Promise.withResolvers<number>()]
    const options: Options = { lease: '60s', perform: () => answers[calls.length - 1]!.promise }
    await using first = await openCaller(calls, options)
    await first.ask({ number: 0 })
    await waitFor(() => calls.length === 1)
    await expire(first)
    await using second = await openCaller(calls, options, { url: first.url })
    await waitFor(() => calls.length === 2)
    answers[1]!.resolve(2)
    await second.settled()
    answers[0]!.resolve(1)
    await waitFor(() => first.worker?.inFlight === 0)
    expect(await first.effects()).toHaveLength(1)
    expect(await first.deadLetters()).toEqual([])
    await expectNothingKept(first)
  })

  test('says nothing any more, not even that its last attempt has failed', async () => {
    const calls: number[] = []
    const answers = [Promise.withResolvers<number>(), Promise.withResolvers<number>()]
    const options: Options = { lease: '60s', perform: () => answers[calls.length - 1]!.promise }
    await using first = await openCaller(calls, { ...options, attempts: 1 })
    await first.ask({ number: 0 })
    await waitFor(() => calls.length === 1)
    await expire(first)
    await using second = await openCaller(calls, options, { url: first.url })
    await waitFor(() => calls.length === 2)
    answers[1]!.resolve(2)
    await second.settled()
    answers[0]!.reject(new Error('too late to matter'))
    await waitFor(() => first.worker?.inFlight === 0)
    expect(await first.effects()).toHaveLength(1)
    expect(await first.deadLetters()).toEqual([])
  })
})

test('a shutdown past its grace costs the event no attempt', async () => {
  const calls: number[] = []
  await using first = await openCaller(calls, {
    attempts: 1,
    perform: (_, { signal }) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
  })
  await first.ask({ number: 0 })
  await waitFor(() => calls.length === 1)
  await first.worker?.drain(50)
  expect(await first.deadLetters()).toEqual([])
  await using second = await openCaller(calls, { attempts: 1 }, { url: first.url })
  await second.settled()
  expect(await second.effects()).toHaveLength(1)
})

test('a dead letter that is redriven runs once, whoever presses the button', async () => {
  let isRepaired = false
  const calls: number[] = []
  await using engine = await openCaller(calls, {
    async perform({ data }) {
      if (!isRepaired) throw new Error('the office is closed')
      return data.number
    },
  })
  await engine.ask({ number: 0 })
  await engine.settled()
  const [letter] = await engine.deadLetters()
  expect(letter).toMatchObject({ attempts: 3 })
  isRepaired = true
  const press = () => redriveDeadLetters(engine.database, { ids: [letter!.id], by: 'a test' })
  expect((await Promise.all([press(), press(), press()])).sort()).toEqual([0, 0, 1])
  await engine.settled()
  expect(await engine.effects()).toHaveLength(1)
  expect(calls).toHaveLength(4)
  expect(await engine.deadLetters()).toEqual([])
})

test('a dead letter whose consumer is gone does not keep the others from being redriven', async () => {
  let isRepaired = false
  await using engine = await openCaller([], {
    attempts: 1,
    async perform({ data }) {
      if (!isRepaired) throw new Error('the office is closed')
      return data.number
    },
  })
  await engine.ask({}, {})
  await engine.settled()
  isRepaired = true
  const [gone] = await engine.deadLetters()
  await engine.database.sql`update kerp.dead_letters set consumer = 'chaos.gone' where id = ${gone!.id}`
  await redriveDeadLetters(engine.database, { by: 'a test' }).catch(() => {})
  await engine.settled()
  expect(await engine.effects()).toHaveLength(1)
  expect(await engine.deadLetters()).toMatchObject([{ consumer: 'chaos.gone' }])
})
