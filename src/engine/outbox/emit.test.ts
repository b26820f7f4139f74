import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { Envelope } from '../../kernel/envelope.ts'
import { defineEvent } from '../../kernel/event.ts'
import { isUuid } from '../../kernel/ids.ts'
import { wonSchema } from '../../kernel/schema.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { VirtualClock } from '../../testing/virtual-clock.ts'
import type { Database } from '../database/database.ts'
import { consumerIds } from '../inbox/store.ts'
import { emit, emitAll, maxEventBytes } from './emit.ts'
import { routeEvents } from './routes.ts'

const Sold = defineEvent('item.sold', {
  version: 2,
  data: z.object({ item: z.string(), price: wonSchema() }),
  key: ({ item }) => item,
})
const Noted = defineEvent('note.written', { data: z.object({ text: z.string() }) })

let home: TestDatabase
let database: Database

beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
})
afterAll(async () => {
  await database.close()
  await home.drop()
})

const sold = { item: 'lamp', price: 42_000n }

async function envelopeOf(eventId: string): Promise<Envelope | undefined> {
  const [row] = await database.sql<{ envelope: string }>`select envelope from kerp.events where event_id = ${eventId}`
  return row && (JSON.parse(row.envelope) as Envelope)
}

const waiting = async (eventId: string) =>
  (await database.sql`select 1 from kerp.outbox_events where event_id = ${eventId}`).length

describe('an event exists if and only if its transaction commits', () => {
  test('one of ours', async () => {
    const id = await database.transaction((tx) => emit(tx, Sold, sold))
    expect(isUuid(id)).toBe(true)
    expect(await envelopeOf(id)).toEqual({
      eventId: id,
      eventType: 'item.sold',
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      data: { item: 'lamp', price: 42_000 },
      version: 2,
      key: 'lamp',
      companyId: 'default',
    })
  })

  test('one of a plain client', async () => {
    const client = new pg.Client({ connectionString: home.url })
    await client.connect()
    await client.query('begin')
    const id = await emit(client, Sold, sold, { companyId: 'one' })
    expect(await envelopeOf(id)).toBeUndefined()
    await client.query('commit')
    await client.end()
    expect(await envelopeOf(id)).toMatchObject({ companyId: 'one', data: { price: 42_000 } })
  })

  test('after a rollback nothing is left of it', async () => {
    let id = ''
    const failed = database.transaction(async (tx) => {
      id = await emit(tx, Sold, sold)
      throw new Error('on purpose')
    })
    await expect(failed).rejects.toThrow('on purpose')
    expect(await envelopeOf(id)).toBeUndefined()
    expect(await waiting(id)).toBe(0)
  })

  test('a part that is undone takes its events with it, and only those', async () => {
    const ids: string[] = []
    await database.transaction(async (tx) => {
      ids.push(await emit(tx, Sold, sold))
      const part = tx.transaction(async (inner) => {
        ids.push(await emit(inner, Sold, sold))
        throw new Error('on purpose')
      })
      await part.catch(() => {})
      ids.push(await emit(tx, Sold, sold))
    })
    expect(await Promise.all(ids.map(waiting))).toEqual([1, 0, 1])
  })

  test('also when nobody awaited the emit', async () => {
    const [item] = await database.transaction(async (tx) => {
      void emit(tx, Sold, { ...sold, item: 'forgotten' })
      return ['forgotten']
    })
    expect(await database.sql`select 1 from kerp.outbox_events where key = ${item}`).toHaveLength(1)
  })
})

describe('is refused before anything is written', () => {
  test('what is too large, with what to do about it', async () => {
    const text = '가'.repeat(maxEventBytes / 3)
    const refused = database.transaction((tx) => emit(tx, Noted, { text }))
    await expect(refused).rejects.toMatchObject({
      code: 'EVENT_TOO_LARGE',
      message: expect.stringMatching(/note\.written.*1000\d+ bytes.*1000000/),
      hint: expect.any(String),
    })
  })

  test('but not what is just small enough', async () => {
    const id = await database.transaction((tx) => emit(tx, Noted, { text: 'x'.repeat(maxEventBytes - 300) }))
    expect(await waiting(id)).toBe(1)
  })

  test('data that do not fit, with the name of the field', async () => {
    const refused = database.transaction((tx) => emit(tx, Sold, { item: 5, price: 1n } as never))
    await expect(refused).rejects.toMatchObject({ code: 'EVENT_INVALID', message: expect.stringContaining('item') })
  })

  test('a key that no index could hold', async () => {
    const refused = database.transaction((tx) => emit(tx, Noted, { text: 'x' }, { key: 'k'.repeat(501) }))
    await expect(refused).rejects.toMatchObject({ code: 'EVENT_INVALID', message: expect.stringContaining('501') })
    expect(await database.transaction((tx) => emit(tx, Noted, { text: 'x' }, { key: '가'.repeat(500) }))).toBeDefined()
  })

  test('and of several none is written when one is refused', async () => {
    const key = 'all or none'
    await database.transaction(async (tx) => {
      const all = emitAll(tx, [
        [Sold, { item: key, price: 1n }],
        [Sold, { item: key }],
      ])
      await expect(all).rejects.toMatchObject({ code: 'EVENT_INVALID' })
    })
    expect(await database.sql`select 1 from kerp.events where key = ${key}`).toEqual([])
  })
})

test('any text survives the way through the tables', async () => {
  for (const text of ['', "'; --", '"\\', '👩‍👩‍👧', 'NUL \u0000', 'half \ud83d', '\u2028', '$1']) {
    const id = await database.transaction((tx) => emit(tx, Noted, { text }))
    expect((await envelopeOf(id))?.data).toEqual({ text })
  }
})

test('several events are written in the order given', async () => {
  const items = Array.from({ length: 50 }, (_, index) => `order-${index}`)
  await database.transaction((tx) =>
    emitAll(
      tx,
      items.map((item) => [Sold, { item, price: 1n }] as const),
      { key: 'order' },
    ),
  )
  const rows = await database.sql<{
    envelope: string
  }>`select envelope from kerp.outbox_events where key = 'order' order by id`
  expect(rows.map(({ envelope }) => (JSON.parse(envelope) as Envelope).data)).toEqual(
    items.map((item) => ({ item, price: 1 })),
  )
})

test('events emitted side by side in one transaction are all written, those of one after the other in order', async () => {
  await database.transaction((tx) =>
    Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        await emit(tx, Noted, { text: `${index} first` }, { key: `beside-${index}` })
        await emit(tx, Noted, { text: `${index} second` }, { key: `beside-${index}` })
      }),
    ),
  )
  const rows = await database.sql<{ texts: string[] }>`
    select array_agg(envelope::json -> 'data' ->> 'text' order by id) as texts from kerp.outbox_events where key like 'beside-%' group by key`
  expect(rows.map(({ texts }) => texts).sort()).toEqual(
    Array.from({ length: 20 }, (_, index) => [`${index} first`, `${index} second`]).sort(),
  )
})

test('parts that fail beside them take only their own events with them', async () => {
  await database.transaction((tx) =>
    Promise.all(
      Array.from({ length: 12 }, async (_, index) => {
        const handle = tx.in({ companyId: 'parts' })
        const part = handle.transaction(async (inner) => {
          await emit(inner, Noted, { text: `${index} inside` })
          if (index % 2) throw new Error('on purpose')
        })
        await part.catch(() => {})
        await emit(handle, Noted, { text: `${index} after` })
      }),
    ),
  )
  const rows = await database.sql<{ text: string }>`
    select envelope::json -> 'data' ->> 'text' as text from kerp.events where company_id = 'parts'`
  const expected = Array.from({ length: 12 }, (_, index) =>
    index % 2 ? [`${index} after`] : [`${index} inside`, `${index} after`],
  )
  expect(rows.map(({ text }) => text).sort()).toEqual(expected.flat().sort())
})

test('none at all costs no statement', async () => {
  expect(await database.transaction((tx) => emitAll(tx, []))).toEqual([])
})

describe('for whom and why', () => {
  const context = { companyId: 'one', correlationId: 'c', causationId: 'e', traceparent: 't', source: 's' }

  test('is taken from the transaction', async () => {
    const id = await database.transaction((tx) => emit(tx, Noted, { text: 'x' }), { context })
    expect(await envelopeOf(id)).toMatchObject(context)
  })

  test('can be said for one event', async () => {
    const id = await database.transaction((tx) => emit(tx, Noted, { text: 'x' }, { companyId: 'two', key: 'mine' }), {
      context,
    })
    expect(await envelopeOf(id)).toMatchObject({ ...context, companyId: 'two', key: 'mine' })
  })

  test('and when, by a clock of one’s own', async () => {
    const clock = new VirtualClock({ startAt: Date.UTC(2026, 0, 2) })
    const id = await database.transaction((tx) => emit(tx, Noted, { text: 'x' }, { clock }))
    expect((await envelopeOf(id))?.timestamp).toBe('2026-01-02T00:00:00.000Z')
  })
})

describe('where an event goes', () => {
  const Routed = defineEvent('event.routed', { data: z.object({}) })
  const emitOne = () => database.transaction((tx) => emit(tx, Routed, {}))
  const delivered = async (eventId: string) =>
    (await database.sql`select 1 from kerp.deliveries where event_id = ${eventId}`).length
  const places = async (eventId: string) => ({ outbox: await waiting(eventId), consumers: await delivered(eventId) })

  beforeAll(async () => {
    const ids = await consumerIds(database, ['one', 'other'])
    for (const id of ids.values()) await database.sql`insert into kerp.subscriptions values ('event.routed', ${id})`
  })

  test('is the outbox while nobody has said anything, from which nothing is lost', async () => {
    expect(await places(await emitOne())).toEqual({ outbox: 1, consumers: 0 })
  })

  test('can be said for all, and otherwise for one type', async () => {
    await routeEvents(database, 'database')
    expect(await places(await emitOne())).toEqual({ outbox: 0, consumers: 2 })
    await routeEvents(database, 'broker', 'event.routed')
    expect(await places(await emitOne())).toEqual({ outbox: 1, consumers: 0 })
    await routeEvents(database, 'database', 'event.routed')
    await routeEvents(database, 'broker')
    expect(await places(await emitOne())).toEqual({ outbox: 0, consumers: 2 })
  })

  test('what was emitted before a switch stays on its way', async () => {
    await routeEvents(database, 'broker', 'event.routed')
    const before = await emitOne()
    await routeEvents(database, 'database', 'event.routed')
    expect(await places(before)).toEqual({ outbox: 1, consumers: 0 })
  })
})
