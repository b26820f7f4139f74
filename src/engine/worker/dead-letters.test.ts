import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError } from '../../kernel/errors.ts'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import type { Database } from '../database/database.ts'
import { consumerIds } from '../inbox/store.ts'
import type { DeadLetter } from '../transport.ts'
import type { DeadLetterFilter } from './dead-letters.ts'
import {
  deadLetterSink,
  discardDeadLetters,
  errorChain,
  listDeadLetters,
  redriveDeadLetters,
  showDeadLetter,
} from './dead-letters.ts'

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  await consumerIds(database, ['shop', 'bank'])
})
beforeEach(() => database.query('truncate kerp.dead_letters, kerp.deliveries'))
afterAll(async () => {
  await database.close()
  await home.drop()
})

const envelope = (changes: Partial<Envelope> = {}): Envelope => ({
  eventId: newId(),
  eventType: 'item.sold',
  timestamp: '2026-11-20T01:02:03.004Z',
  data: { item: 'lamp' },
  version: 1,
  key: 'lamp',
  companyId: 'one',
  ...changes,
})

async function bury(changes: Partial<DeadLetter> = {}): Promise<DeadLetter> {
  const letter = {
    consumer: 'shop',
    envelope: envelope(),
    reason: 'attempts',
    attempts: 3,
    error: new Error('no'),
    ...changes,
  }
  await deadLetterSink(database)(letter)
  return letter
}

const list = async (filter: Partial<DeadLetterFilter> = {}) =>
  (await listDeadLetters(database, { limit: 100, ...filter })).items
const queued = async () =>
  (await database.sql<{ event_id: string }>`select event_id from kerp.deliveries order by id`).map(
    (row) => row.event_id,
  )

describe('a dead letter', () => {
  test('tells of what, for whom, why and after how many attempts', async () => {
    const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED' })
    const error = new KerpError('TRANSPORT_FAILED', 'could not be sent', { cause })
    const { envelope } = await bury({ error })
    const [row] = await list()
    expect(row).toMatchObject({
      consumer: 'shop',
      eventId: envelope!.eventId,
      eventType: 'item.sold',
      companyId: 'one',
      reason: 'attempts',
      message: 'could not be sent',
      attempts: 3,
      state: 'dead',
      resolvedBy: null,
    })
    const detail = await showDeadLetter(database, row!.id)
    expect(JSON.parse(detail!.envelope)).toEqual(envelope)
    expect(detail!.error).toMatchObject([
      {
        name: 'KerpError',
        code: 'TRANSPORT_FAILED',
        message: 'could not be sent',
        stack: expect.stringContaining('dead-letters.test'),
      },
      { name: 'Error', code: 'ECONNREFUSED', message: 'connection refused' },
    ])
    expect(await showDeadLetter(database, newId())).toBeUndefined()
  })

  test('of what cannot be read keeps its bytes', async () => {
    await deadLetterSink(database)({
      consumer: 'shop',
      raw: 'rub\u0000bish',
      reason: 'MESSAGE_UNREADABLE',
      attempts: 1,
    })
    const [row] = await list()
    expect(row).toMatchObject({ eventId: null, eventType: null, message: '' })
    expect((await showDeadLetter(database, row!.id))!.envelope).toBe('rub\ufffdbish')
  })

  test('is one, however often the event dies before somebody looks', async () => {
    const { envelope } = await bury()
    await bury({ envelope: envelope! })
    await bury({ envelope: envelope!, consumer: 'bank' })
    expect((await list()).map(({ consumer }) => consumer).sort()).toEqual(['bank', 'shop'])
  })

  test('is part of the transaction it is written in', async () => {
    const failed = database.transaction(async (tx) => {
      await deadLetterSink(database)({ consumer: 'shop', envelope: envelope(), reason: 'x', attempts: 1 }, tx)
      throw new Error('on purpose')
    })
    await expect(failed).rejects.toThrow('on purpose')
    expect(await list()).toEqual([])
  })

  test.each([
    ['NUL', 'a\u0000b'],
    ['half of an emoji, as from a text that was cut off', '\ud83d'],
    ['the other half', '\ude00 x'],
    ['quotes and what looks like an escape', `"'\\u0000 \\ud83d $1`],
    ['much text', 'x'.repeat(200_000)],
  ])('can be written whatever the error says: %s', async (_, message) => {
    const error = Object.assign(new Error(message, { cause: new Error(message) }), { code: message })
    error.name = message
    await bury({ error, reason: 'attempts' })
    expect(await list()).toHaveLength(1)
  })

  test('tells an error that is its own cause only so often', () => {
    const error = new Error('round')
    error.cause = error
    expect(errorChain(error)).toHaveLength(10)
    expect(errorChain(undefined)).toEqual([])
  })
})

describe('failures of one kind have one fingerprint', () => {
  async function fingerprints(...errors: Error[]): Promise<number> {
    await database.query('truncate kerp.dead_letters')
    for (const error of errors) await bury({ error })
    return new Set((await list()).map(({ fingerprint }) => fingerprint)).size
  }

  test('whatever numbers are in them', async () => {
    expect(await fingerprints(new Error('item 7 costs 5.50'), new Error('item 123456 costs 1'))).toBe(1)
  })

  test('whatever ids are in them', async () => {
    const [ids] = fc.sample(fc.array(fc.uuid(), { minLength: 20, maxLength: 20 }), { numRuns: 1, seed: 7 })
    expect(await fingerprints(...ids!.map((id) => new Error(`no employee ${id}`)))).toBe(1)
    expect(
      await fingerprints(...ids!.map((id) => new Error('x', { cause: new Error(`Key (id)=(${id}) exists`) }))),
    ).toBe(1)
  })

  test('those of different kinds, causes or consumers do not', async () => {
    expect(
      await fingerprints(new Error('a'), new Error('b'), new TypeError('a'), new Error('a', { cause: new Error('b') })),
    ).toBe(4)
    await database.query('truncate kerp.dead_letters')
    await bury({ consumer: 'shop' })
    await bury({ consumer: 'bank' })
    const [one, other] = await list()
    expect(one!.fingerprint).not.toBe(other!.fingerprint)
  })
})

describe('the list', () => {
  test('shows the newest first, page by page', async () => {
    for (let i = 0; i < 5; i++) await bury({ error: new Error(`no ${i}`) })
    const first = await listDeadLetters(database, { limit: 2 })
    expect(first.items.map(({ message }) => message)).toEqual(['no 4', 'no 3'])
    const second = await listDeadLetters(database, { limit: 2, cursor: first.nextCursor! })
    expect(second.items.map(({ message }) => message)).toEqual(['no 2', 'no 1'])
    const last = await listDeadLetters(database, { limit: 2, cursor: second.nextCursor! })
    expect(last).toMatchObject({ items: [{ message: 'no 0' }], nextCursor: null })
  })

  test('has no page behind one that is just full', async () => {
    await bury()
    await bury()
    expect((await listDeadLetters(database, { limit: 2 })).nextCursor).toBeNull()
    expect(await listDeadLetters(database, { limit: 2, consumer: 'nobody' })).toEqual({ items: [], nextCursor: null })
  })

  test('can be of one consumer, one fingerprint, one state', async () => {
    await bury()
    await bury({ consumer: 'bank', error: new Error('other') })
    const [bank] = await list({ consumer: 'bank' })
    expect(bank).toMatchObject({ consumer: 'bank' })
    expect(await list({ fingerprint: bank!.fingerprint })).toEqual([bank])
    await discardDeadLetters(database, { ids: [bank!.id], by: 'me' })
    expect(await list({ state: 'discarded' })).toMatchObject([
      { id: bank!.id, resolvedBy: 'me', resolvedAt: expect.any(Date) },
    ])
    expect(await list()).toHaveLength(1)
  })
})

describe('redriving', () => {
  test('sends a letter to its consumer again, as it was, and says who did that', async () => {
    const { envelope } = await bury()
    await bury({ consumer: 'bank' })
    expect(await redriveDeadLetters(database, { consumer: 'shop', by: 'me' })).toBe(1)
    const rows = await database.sql<{ name: string; envelope: string }>`
      select c.name, d.envelope from kerp.deliveries d join kerp.consumers c on c.id = d.consumer_id`
    expect(rows.map(({ name, envelope: text }) => [name, JSON.parse(text)])).toEqual([['shop', envelope]])
    expect(await list({ state: 'redriven' })).toMatchObject([
      { consumer: 'shop', resolvedBy: 'me', resolvedAt: expect.any(Date) },
    ])
  })

  test('happens once, whoever else presses the button', async () => {
    for (let i = 0; i < 20; i++) await bury()
    const counts = await Promise.all([1, 2, 3, 4].map(() => redriveDeadLetters(database, { by: 'me' })))
    expect(counts.reduce((sum, count) => sum + count)).toBe(20)
    expect(new Set(await queued()).size).toBe(20)
    expect(await queued()).toHaveLength(20)
    expect(await redriveDeadLetters(database, { by: 'me' })).toBe(0)
  })

  test('goes in the order in which they died, so many at once', async () => {
    const died: string[] = []
    for (let i = 0; i < 5; i++) died.push((await bury()).envelope!.eventId)
    expect(await redriveDeadLetters(database, { by: 'me', limit: 3 })).toBe(3)
    expect(await queued()).toEqual(died.slice(0, 3))
  })

  test('wakes those who wait for the event', async () => {
    await bury()
    const heard: string[] = []
    const stop = database.onEmitted((types) => heard.push(...types))
    await redriveDeadLetters(database, { by: 'me' })
    stop()
    expect(heard).toEqual(['item.sold'])
  })

  test('one that died again after it was redriven is a new letter', async () => {
    const { envelope } = await bury()
    await redriveDeadLetters(database, { by: 'me' })
    await bury({ envelope: envelope! })
    expect(await list()).toHaveLength(1)
    expect(await list({ state: 'redriven' })).toHaveLength(1)
  })

  test('what cannot be read, and what is already discarded, stays', async () => {
    await deadLetterSink(database)({ consumer: 'shop', raw: 'rubbish', reason: 'MESSAGE_UNREADABLE', attempts: 1 })
    await bury()
    await discardDeadLetters(database, { by: 'me', limit: 2 })
    await bury()
    expect(await redriveDeadLetters(database, { by: 'me' })).toBe(1)
    expect(await list({ state: 'discarded' })).toHaveLength(2)
  })

  test('one whose consumer is gone stays, and does not hold up the others', async () => {
    await bury({ consumer: 'gone' })
    await bury()
    expect(await redriveDeadLetters(database, { by: 'me' })).toBe(1)
    expect(await list()).toMatchObject([{ consumer: 'gone' }])
  })

  test('one that the relay could not publish goes back to the outbox', async () => {
    const { envelope } = await bury({ consumer: 'relay' })
    await redriveDeadLetters(database, { by: 'me' })
    const rows = await database.sql<{ event_id: string }>`select event_id from kerp.outbox_events`
    expect(rows).toEqual([{ event_id: envelope!.eventId }])
    expect(await queued()).toEqual([])
  })
})
