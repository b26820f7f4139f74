import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { systemClock } from '../../kernel/clock.ts'
import { defineEvent } from '../../kernel/event.ts'
import { newId } from '../../kernel/ids.ts'
import { openProxy } from '../../testing/proxy.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import type { Database } from '../database/database.ts'
import { postgresInbox } from '../inbox/store.ts'
import type { Tx } from '../database/transaction.ts'
import type { Delivery, HandleBatch } from '../transport.ts'
import { applyBatch } from './apply.ts'
import { handleWithInbox } from './handle.ts'
import { fixed, judge } from './retry.ts'
import type { Event } from './subscription.ts'
import { on } from './subscription.ts'

const Paid = defineEvent('bill.paid', { data: z.object({ bill: z.string() }) })
type Paid = Event<{ bill: string }>

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await home.open()
  // No constraint: what is done twice must be seen, not refused.
  await database.query('create table effects (place bigint generated always as identity, bill text)')
})
beforeEach(() => database.query('truncate effects, kerp.receipts'))
afterAll(async () => {
  await database.close()
  await home.drop()
})

const pay = ({ data }: Paid, tx: Tx) => tx.sql`insert into effects (bill) values (${data.bill})`
const effects = async () =>
  (await database.sql<{ bill: string }>`select bill from effects order by place`).map(({ bill }) => bill)

const delivery = (bill: string, key: string | null = null, eventId = newId()): Delivery => {
  const envelope = { eventId, eventType: Paid.name, timestamp: new Date().toISOString(), data: { bill }, version: 1 }
  return { envelope: { ...envelope, key, companyId: 'one' }, attempt: 1, signal: new AbortController().signal }
}

function worker(handle: (event: Paid, tx: Tx) => unknown = pay, on_: Database = database) {
  const counted = { done: 0, duplicates: 0 }
  const handleBatch: HandleBatch = handleWithInbox({
    database: on_,
    inbox: postgresInbox(1),
    now: () => Date.now(),
    apply: applyBatch(on(Paid, { name: 'payer', handle }), systemClock),
    judge: (each, error) => judge(error, each.attempt, 3, fixed(50)),
    done(fresh, duplicates) {
      counted.done += fresh.length
      counted.duplicates += duplicates
    },
  })
  const carryOut = async (...batch: Delivery[]) => (await handleBatch(batch)).map((settlement) => settlement.do)
  return { handleBatch, carryOut, counted }
}

test('what is delivered again is acknowledged and not done again', async () => {
  const { carryOut, counted } = worker()
  const [a, b] = [delivery('a'), delivery('b')]
  expect(await carryOut(a)).toEqual(['ack'])
  expect(await carryOut(a, b, b)).toEqual(['ack', 'ack', 'ack'])
  expect(await effects()).toEqual(['a', 'b'])
  expect(counted).toEqual({ done: 2, duplicates: 2 })
})

test('two workers that have the same events at once do each of them once', async () => {
  const batch = Array.from({ length: 50 }, (_, index) => delivery(`b${index}`))
  const all = await Promise.all([1, 2, 3].map((turn) => worker().carryOut(...(turn % 2 ? batch : batch.toReversed()))))
  expect(new Set(all.flat())).toEqual(new Set(['ack']))
  expect((await effects()).sort()).toEqual(batch.map(({ envelope }) => (envelope.data as { bill: string }).bill).sort())
})

test('what fails is not remembered as done, and its neighbours are', async () => {
  let fails = true
  const { carryOut } = worker(async (event, tx) => {
    await pay(event, tx)
    if (event.data.bill === 'bad' && fails) throw new Error('no')
  })
  const batch = [delivery('a'), delivery('bad'), delivery('c')]
  expect(await carryOut(...batch)).toEqual(['ack', 'retry', 'ack'])
  expect((await effects()).sort()).toEqual(['a', 'c'])
  fails = false
  expect(await carryOut(...batch)).toEqual(['ack', 'ack', 'ack'])
  expect((await effects()).sort()).toEqual(['a', 'bad', 'c'])
})

test('what shares a key with a failed one waits behind it', async () => {
  const { handleBatch } = worker((event, tx) =>
    event.data.bill === 'bad' ? Promise.reject(new Error('no')) : pay(event, tx),
  )
  const settlements = await handleBatch([delivery('bad', 'k'), delivery('b', 'k'), delivery('c', 'j')])
  expect(settlements).toMatchObject([
    { do: 'retry', blame: 'message', afterMs: 50 },
    { do: 'retry', blame: 'consumer', afterMs: 0 },
    { do: 'ack' },
  ])
  expect(await effects()).toEqual(['c'])
})

test('a part of the transaction that fails and is caught undoes nothing of its neighbours', async () => {
  const { carryOut } = worker(async (event, tx) => {
    const part = tx.transaction(async (inner) => {
      await pay(event, inner)
      if (event.data.bill.startsWith('odd')) throw new Error('on purpose')
    })
    await part.catch(() => {})
    await pay({ ...event, data: { bill: `${event.data.bill}, after` } }, tx)
  })
  const bills = Array.from({ length: 10 }, (_, index) => `${index % 2 ? 'odd' : 'even'} ${index}`)
  expect(new Set(await carryOut(...bills.map((bill) => delivery(bill))))).toEqual(new Set(['ack']))
  const expected = bills.flatMap((bill) => (bill.startsWith('even') ? [bill, `${bill}, after`] : [`${bill}, after`]))
  expect((await effects()).sort()).toEqual(expected.sort())
})

test('what a handler forgot to await does not slip out after its end', async () => {
  const { carryOut } = worker((event, tx) => {
    void Promise.resolve()
      .then(() => tx.query('select 1'))
      .then(() => pay({ ...event, data: { bill: 'forgotten' } }, tx))
      .catch(() => {})
    return pay(event, tx)
  })
  expect(await carryOut(delivery('a'), delivery('b'))).toEqual(['ack', 'ack'])
  expect((await effects()).sort()).toEqual(['a', 'b'])
})

test('while the database is away nothing is anybody’s fault', async () => {
  const proxy = await openProxy(Number(new URL(home.url).port))
  const url = Object.assign(new URL(home.url), { host: `127.0.0.1:${proxy.port}` }).toString()
  const away = await home.open({ url, acquireTimeoutMs: 1000 })
  const { handleBatch } = worker(pay, away)
  const batch = [delivery('a'), delivery('b')]
  proxy.cut()
  const innocent = { do: 'retry', blame: 'consumer', afterMs: expect.any(Number) }
  expect(await handleBatch(batch)).toMatchObject([innocent, innocent])
  proxy.mend()
  expect(await handleBatch(batch)).toEqual([{ do: 'ack' }, { do: 'ack' }])
  expect((await effects()).sort()).toEqual(['a', 'b'])
  await away.close()
  await proxy.close()
})

test('nor while every connection is in use', async () => {
  const small = await home.open({ max: 1, acquireTimeoutMs: 50 })
  const { handleBatch } = worker(pay, small)
  await small.transaction(async () => {
    expect(await handleBatch([delivery('a')])).toMatchObject([{ do: 'retry', blame: 'consumer' }])
  })
  await small.close()
})

test('one that is stuck in a statement at its deadline is ended there, and costs its neighbours only that time', async () => {
  const handle = (event: Paid, tx: Tx) =>
    event.data.bill === 'stuck' ? tx.query('select pg_sleep(62)') : pay(event, tx)
  const subscription = on(Paid, { name: 'payer', handle, deadline: '200ms' })
  const handleBatch = handleWithInbox({
    database,
    inbox: postgresInbox(1),
    now: () => Date.now(),
    apply: applyBatch(subscription, systemClock),
    judge: (each, error) => judge(error, each.attempt, 3, fixed(50)),
    done() {},
  })
  const settlements = await handleBatch([delivery('a'), delivery('stuck'), delivery('c')])
  expect(settlements).toMatchObject([
    { do: 'ack' },
    { do: 'retry', error: { code: 'DEADLINE_EXCEEDED' } },
    { do: 'ack' },
  ])
  expect((await effects()).sort()).toEqual(['a', 'c'])
})

test('a receipt tells when it was done and at which attempt', async () => {
  const { handleBatch } = worker()
  const [a, b] = [delivery('a'), { ...delivery('b'), attempt: 3 }]
  await handleBatch([a, b])
  const rows = await database.sql`select hop, encode(event_ids, 'hex') as ids, attempts from kerp.receipts`
  const ids = [a, b].map(({ envelope }) => envelope.eventId.replaceAll('-', '')).join('')
  expect(rows).toEqual([{ hop: 1, ids, attempts: [1, 3] }])
})
