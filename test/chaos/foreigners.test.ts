import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { emit, maxEventBytes } from '../../src/engine/outbox/emit.ts'
import { startRelay } from '../../src/engine/outbox/relay.ts'
import { routeEvents } from '../../src/engine/outbox/routes.ts'
import { fixed } from '../../src/engine/worker/retry.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import { createIds } from '../../src/kernel/ids.ts'
import type { Clock } from '../../src/kernel/clock.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { defineEvent } from '../../src/kernel/event.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Engine } from './engine.ts'
import { Asked, openEngine, takeEffect } from './engine.ts'

const consumer = 'chaos.reader'
const handling = () =>
  on(Asked, {
    name: consumer,
    attempts: 2,
    retry: fixed(20),
    handle: ({ data }, tx) => (data.act === 'fail' ? Promise.reject(new Error('no')) : takeEffect(tx, consumer, data)),
  })
const performing = () =>
  on(Asked, {
    name: consumer,
    attempts: 2,
    retry: fixed(20),
    lease: '1s',
    perform: async ({ data }) => (data.act === 'fail' ? Promise.reject(new Error('no')) : data.number),
    commit: (_, tx, { data }) => takeEffect(tx, consumer, data),
  })

interface Row {
  event_id: string
  event_type: string
  company_id: string
  key: string | null
  envelope: string
}

/** What a program in another language would write. */
function foreignRow(number: number, change: object = {}): Row {
  const event_id = randomUUID()
  const envelope = {
    eventId: event_id,
    eventType: 'chaos.asked',
    timestamp: '2026-03-02T09:00:00.000Z',
    data: { key: `key-${number}`, number, act: 'do' },
    version: 1,
    key: `key-${number}`,
    companyId: 'abroad',
  }
  const text = JSON.stringify({ ...envelope, ...change })
  return { event_id, event_type: 'chaos.asked', company_id: 'abroad', key: envelope.key, envelope: text }
}

async function emitRows({ url }: Engine, rows: readonly Row[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('select kerp.emit($1)', [JSON.stringify(rows)])
  } finally {
    await client.end()
  }
}

const wrongs: [string, Row, object][] = [
  ['of an unknown type', foreignRow(1, { eventType: 'chaos.unheard-of' }), { reason: 'EVENT_UNKNOWN' }],
  ['with invalid data', foreignRow(1, { data: { key: 7 } }), { reason: 'EVENT_INVALID' }],
  ['without data', foreignRow(1, { data: undefined }), { reason: 'MESSAGE_UNREADABLE' }],
  ['that is no JSON', { ...foreignRow(1), envelope: 'not JSON' }, { reason: 'MESSAGE_UNREADABLE' }],
  ['that is null', { ...foreignRow(1), envelope: 'null' }, { reason: 'MESSAGE_UNREADABLE' }],
  ['that is empty', { ...foreignRow(1), envelope: '{}' }, {}],
  ['whose id is none', foreignRow(1, { eventId: '7', data: {} }), {}],
]

describe.each([
  ['handle', handling],
  ['perform', performing],
])('a consumer that can %s', (_, subscription) => {
  test.each(wrongs)('an event %s is a dead letter, and its neighbours are done', async (_what, wrong, letter) => {
    await using engine = await openEngine([subscription()])
    await emitRows(engine, [foreignRow(0), wrong, foreignRow(2)])
    await engine.settled(6000)
    expect((await engine.effects()).map(({ number }) => number).sort()).toEqual([0, 2])
    expect(await engine.deadLetters()).toMatchObject([{ consumer, ...letter }])
  })

  test('an event with a very long key is refused where it is emitted', async () => {
    await using engine = await openEngine([subscription()])
    const key = Array.from({ length: 200 }, () => randomUUID()).join('')
    await expect(
      emitRows(engine, [{ ...foreignRow(1, { key, data: { key: '', number: 1, act: 'do' } }), key }]),
    ).rejects.toThrow(/key_has_at_most_500_characters/)
    await emitRows(engine, [foreignRow(0)])
    await engine.settled(6000)
    expect((await engine.effects()).map(({ number }) => number)).toEqual([0])
  })
})

test('an event that cannot be read does not stop the relay', async () => {
  await using engine = await openEngine([handling()])
  await routeEvents(engine.database, 'broker')
  const { database, transport } = engine
  const relay = startRelay({ database, transport })
  try {
    const wrong = { ...foreignRow(1), envelope: 'not JSON' }
    const others = Array.from({ length: 40 }, (_, index) => foreignRow(2 + index))
    await emitRows(engine, [wrong, ...others])
    await waitFor(async () => (await engine.effects()).length === 40, { timeoutMs: 6000, what: 'the others are done' })
    await engine.settled(6000)
    expect(await engine.deadLetters()).toHaveLength(1)
  } finally {
    await relay.stop()
  }
})

test('an event nobody consumes is kept in the history', async () => {
  await using engine = await openEngine([handling()])
  await emitRows(engine, [{ ...foreignRow(1, { eventType: 'chaos.unheard-of' }), event_type: 'chaos.unheard-of' }])
  await engine.settled()
  expect(await engine.database.sql`select event_type from kerp.events`).toEqual([{ event_type: 'chaos.unheard-of' }])
})

test('an event that is too large is refused, and its transaction with it', async () => {
  await using engine = await openEngine([handling()])
  const large = { key: 'x'.repeat(maxEventBytes), number: 0, act: 'do' }
  const business = engine.database.transaction(async (tx) => {
    await takeEffect(tx, 'business', { ...large, key: 'short' })
    await emit(tx, Asked, large, { key: 'short' })
  })
  await expect(business).rejects.toMatchObject({ code: 'EVENT_TOO_LARGE', hint: expect.stringContaining('id') })
  expect(await engine.effects()).toEqual([])
  expect(await engine.database.sql`select 1 from kerp.events`).toEqual([])
})

test("in a transaction of the plain client's, an event comes with the commit and goes with the rollback", async () => {
  await using engine = await openEngine([handling()])
  const client = new pg.Client({ connectionString: engine.url })
  await client.connect()
  try {
    for (const [number, ending] of [
      [1, 'rollback'],
      [2, 'commit'],
    ] as const) {
      await client.query('begin')
      await emit(client, Asked, { key: 'plain', number, act: 'do' })
      await client.query(ending)
    }
  } finally {
    await client.end()
  }
  await waitFor(async () => (await engine.effects()).length > 0)
  expect(await engine.effects()).toMatchObject([{ number: 2 }])
  expect(await engine.database.sql`select 1 from kerp.events`).toHaveLength(1)
})

test('a clock that steps back an hour changes neither the order of ids nor that of a key', async () => {
  await using engine = await openEngine([handling()])
  let now = Date.now()
  const clock: Clock = { ...systemClock, now: () => now }
  const newId = createIds(clock, (bytes) => void crypto.getRandomValues(bytes))
  const ids: string[] = []
  for (let number = 0; number < 20; number++) {
    if (number === 10) now -= 3_600_000
    const emitted = engine.database.transaction((tx) =>
      emit(tx, Asked, { key: 'one', number, act: 'do' }, { clock, newId }),
    )
    ids.push(await emitted)
    now++
  }
  await engine.settled()
  expect(ids).toEqual([...new Set(ids)].sort())
  expect((await engine.effects()).map(({ number }) => number)).toEqual(
    Array.from({ length: 20 }, (_, number) => number),
  )
})

describe('two versions of the program at once', () => {
  const name = 'chaos.salary-changed'
  const old = defineEvent(name, { version: 1, data: z.object({ amount: z.number() }) })
  const later = defineEvent(name, {
    version: 2,
    data: z.object({ amount: z.number(), currency: z.string() }),
    upcast: { 1: (data: { amount: number }) => ({ ...data, currency: 'KRW' }) },
  })
  /** The same field in another unit: to the old program it looks like its own. */
  const otherUnit = defineEvent(name, {
    version: 2,
    data: z.object({ amount: z.number() }),
    upcast: { 1: ({ amount }: { amount: number }) => ({ amount: amount * 10_000 }) },
  })
  const reader = (type: typeof old | typeof later, reader: string, note: string) =>
    on(type, {
      name: reader,
      handle: ({ data }, tx) => takeEffect(tx, reader, { key: 'one', number: data.amount, act: '' }, note),
    })

  test('what the old one emits is brought up to date; what the new one emits waits for a program that knows it', async () => {
    await using before = await openEngine([reader(old, 'chaos.old', 'old')])
    await using after = await openEngine([reader(later, 'chaos.new', 'new')], { url: before.url })
    await before.database.transaction((tx) => emit(tx, old, { amount: 1 }))
    await after.database.transaction((tx) => emit(tx, later, { amount: 2, currency: 'USD' }))
    const numbers = async (reader: string) => (await after.effects(reader)).map(({ number }) => number).sort()
    await waitFor(async () => (await numbers('chaos.new')).length === 2 && (await numbers('chaos.old')).length === 1)
    expect(await numbers('chaos.old')).toEqual([1])
    const waiting = () => after.database.sql`select attempt, last_error from kerp.deliveries`
    await waitFor(async () => (await waiting())[0]?.['last_error'])
    expect(await waiting()).toMatchObject([{ attempt: 0, last_error: expect.stringContaining('this program knows 1') }])
    expect(await after.deadLetters()).toEqual([])
  })

  test('data of a version that a program does not know yet are left to one that does', async () => {
    await using before = await openEngine([reader(old, consumer, 'old')])
    await before.database.transaction((tx) => emit(tx, otherUnit, { amount: 40_000_000 }))
    await waitFor(async () => {
      const [waiting] = await before.database.sql<{ claims: number }>`select claims from kerp.deliveries`
      return waiting === undefined || waiting.claims > 0
    })
    expect(await before.effects()).toEqual([])
    await before.worker?.drain()
    await using after = await openEngine([reader(otherUnit, consumer, 'new')], { url: before.url })
    await after.settled()
    expect(await after.effects()).toMatchObject([{ number: 40_000_000, note: 'new' }])
  })
})
