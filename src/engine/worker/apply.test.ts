import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { systemClock } from '../../kernel/clock.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { defineEvent } from '../../kernel/event.ts'
import { newId } from '../../kernel/ids.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { VirtualClock } from '../../testing/virtual-clock.ts'
import type { Database } from '../database/database.ts'
import { openDatabase } from '../database/database.ts'
import type { Tx } from '../database/transaction.ts'
import type { Delivery } from '../transport.ts'
import { applyBatch } from './apply.ts'
import { GroupFailure } from './group.ts'
import type { Event, HandleOptions } from './subscription.ts'
import { on } from './subscription.ts'

const Named = defineEvent('it.named', { data: z.object({ name: z.string() }) })
type Named = Event<{ name: string }>

let home: TestDatabase
let database: Database
beforeAll(async () => {
  home = await testDatabase()
  database = await openDatabase({ url: home.url })
  await database.query('create table notes (place bigint generated always as identity, note text primary key)')
})
beforeEach(() => database.query('truncate notes'))
afterAll(async () => {
  await database.close()
  await home.drop()
})

/** One message: its name, and the key after the colon if it has one. */
function delivery(name: string, changes: Partial<Envelope> = {}): Delivery {
  const key = name.split(':')[1] ?? null
  const envelope = {
    eventId: newId(),
    eventType: Named.name,
    timestamp: new Date().toISOString(),
    data: { name },
    version: 1,
  }
  return {
    envelope: { ...envelope, key, companyId: 'one', ...changes },
    attempt: 1,
    signal: new AbortController().signal,
  }
}

const write = (tx: Tx, note: string) => tx.sql`insert into notes (note) values (${note})`
const read = async () =>
  (await database.sql<{ note: string }>`select note from notes order by place`).map((row) => row.note)

type Options = Partial<HandleOptions<{ name: string }>>

/** Carries the batch out in one transaction; the names of those to blame, with their errors, when that failed. */
async function apply(
  batch: readonly (string | Delivery)[],
  handle: (event: Named, tx: Tx) => unknown,
  options: Options = {},
  clock = systemClock,
) {
  const deliveries = batch.map((one) => (typeof one === 'string' ? delivery(one) : one))
  const subscription = on(Named, { name: 'tested', handle, ...options })
  const failure: unknown = await database
    .transaction((tx) => applyBatch(subscription, clock)(deliveries, tx))
    .then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
  const suspects = failure instanceof GroupFailure ? [...failure.suspects] : []
  const blamed = Object.fromEntries(
    suspects.map(([{ envelope }, error]) => [(envelope.data as Named['data']).name, error]),
  )
  return { failure, blamed }
}

const turns = async (tx: Tx, count: number) => {
  for (let i = 0; i < count; i++) await tx.query('select 1')
}

describe('the messages of a batch', () => {
  test('make their effects in one transaction', async () => {
    const ids = new Set<string>()
    const { failure } = await apply(['a', 'b', 'c'], async ({ data }, tx) => {
      const [row] = await tx.sql<{ id: string }>`select pg_current_xact_id()::text as id`
      ids.add(row!.id)
      await write(tx, data.name)
    })
    expect(failure).toBeUndefined()
    expect(ids.size).toBe(1)
    expect((await read()).sort()).toEqual(['a', 'b', 'c'])
  })

  test('of one key come one after the other, those of others meanwhile', async () => {
    const trace: string[] = []
    const rounds: Record<string, number> = { 'a:k': 5, 'b:k': 1, 'c:j': 2, d: 1 }
    await apply(Object.keys(rounds), async ({ data: { name } }, tx) => {
      trace.push(`+${name}`)
      await turns(tx, rounds[name]!)
      trace.push(`-${name}`)
    })
    expect(trace.filter((line) => line.includes(':k'))).toEqual(['+a:k', '-a:k', '+b:k', '-b:k'])
    expect(trace.slice(0, 3)).toEqual(['+a:k', '+c:j', '+d'])
    expect(trace.indexOf('-d')).toBeLessThan(trace.indexOf('-a:k'))
  })

  test('come all one after the other where they are handled in turn', async () => {
    const trace: string[] = []
    const handle = async ({ data: { name } }: Named, tx: Tx) => {
      trace.push(`+${name}`)
      await turns(tx, name === 'a' ? 5 : 1)
      trace.push(`-${name}`)
    }
    await apply(['a', 'b', 'c:k'], handle, { order: 'in-turn' })
    expect(trace).toEqual(['+a', '-a', '+b', '-b', '+c:k', '-c:k'])
  })

  test('may be handled without awaiting anything', async () => {
    const seen: string[] = []
    const { failure } = await apply(['a:k', 'b:k', 'c'], ({ data }) => seen.push(data.name))
    expect(failure).toBeUndefined()
    expect(seen).toEqual(['a:k', 'b:k', 'c'])
  })

  test('emit for the company and the chain of their own event', async () => {
    const contexts: unknown[] = []
    const batch = [delivery('a', { companyId: 'one', correlationId: 'c' }), delivery('b', { companyId: 'two' })]
    await apply(batch, (_, tx) => contexts.push(tx.context))
    expect(contexts).toEqual([
      { companyId: 'one', correlationId: 'c', causationId: batch[0]!.envelope.eventId },
      { companyId: 'two', correlationId: batch[1]!.envelope.eventId, causationId: batch[1]!.envelope.eventId },
    ])
  })

  test('are brought up to date and checked before a handler sees them', async () => {
    const { blamed } = await apply([delivery('bad', { data: { name: 5 } }), 'good'], ({ data }, tx) =>
      write(tx, data.name),
    )
    expect(Object.values(blamed)).toMatchObject([{ code: 'EVENT_INVALID' }])
    const other = await apply([delivery('a', { eventType: 'it.changed' })], () => {})
    expect(other.blamed).toMatchObject({ a: { code: 'EVENT_UNKNOWN' } })
  })
})

describe('a message whose handler fails', () => {
  test('is blamed, and nothing of the batch is kept', async () => {
    const { blamed } = await apply(['a', 'b', 'c'], async ({ data }, tx) => {
      await write(tx, data.name)
      if (data.name === 'b') throw new Error('mine')
    })
    expect(blamed).toEqual({ b: new Error('mine') })
    expect(await read()).toEqual([])
  })

  test('keeps later ones of its key from running, and no others', async () => {
    const seen: string[] = []
    const { blamed } = await apply(['a:k', 'b:k', 'c:j', 'd:k'], async ({ data }, tx) => {
      seen.push(data.name)
      await turns(tx, 1)
      if (data.name === 'a:k') throw new Error('mine')
    })
    expect(Object.keys(blamed)).toEqual(['a:k'])
    expect(seen).toEqual(['a:k', 'c:j'])
  })

  test('also when it does so before it awaits anything', async () => {
    const seen: string[] = []
    const { blamed } = await apply(['a:k', 'b:k', 'c'], ({ data }) => {
      seen.push(data.name)
      if (data.name === 'a:k') throw new Error('mine')
    })
    expect(Object.keys(blamed)).toEqual(['a:k'])
    expect(seen).toEqual(['a:k', 'c'])
  })

  test('with a statement of its own is blamed for it; those whose statements then fail too are not', async () => {
    const { blamed } = await apply(['a', 'b', 'c'], async ({ data }, tx) => {
      if (data.name === 'b') return tx.query('select 1 / 0')
      await turns(tx, 3)
      return write(tx, data.name)
    })
    expect(Object.keys(blamed)).toEqual(['b'])
    expect(blamed['b']).toMatchObject({ code: '22012' })
  })

  test.each([
    ['undefined', undefined],
    ['null', null],
    ['text', 'text'],
    ['what is no text', Object.create(null)],
  ])('is blamed by whatever it throws: %s', async (_, thrown) => {
    const { blamed } = await apply(['a'], () => Promise.reject(thrown))
    expect(blamed).toMatchObject({ a: { code: 'HANDLER_FAILED' } })
  })

  test('by swallowing the failure of a statement does not get away with it', async () => {
    const { failure } = await apply(['a'], (_, tx) => tx.query('select 1 / 0').catch(() => {}))
    expect(failure).toMatchObject({ code: 'TRANSACTION_CLOSED' })
  })

  // An error of another transaction looks like that of a victim of ours, but nothing else would tell that it failed.
  test('by what went wrong with a transaction of somebody else has failed all the same', async () => {
    const elsewhere = () =>
      database.transaction(async (tx) => {
        await tx.query('select 1 / 0').catch(() => {})
        await tx.query('select 1')
      })
    expect((await apply(['a'], elsewhere)).failure).toBeInstanceOf(Error)
  })

  test('by finding no connection beside that of the transaction has failed all the same', async () => {
    const small = await openDatabase({ url: home.url, max: 1, acquireTimeoutMs: 300 })
    await small.transaction(async () => {
      const { failure } = await apply(['a'], () => small.sql`select 1`)
      expect(failure).toBeInstanceOf(Error)
    })
    await small.close()
  })

  test('by using a part of the transaction that is over has failed all the same', async () => {
    const { failure } = await apply(['a'], async (_, tx) => {
      const part = await tx.transaction(async (inner) => inner)
      await write(part, 'late')
    })
    expect(failure).toBeInstanceOf(Error)
  })
})

describe('what runs into the deadline', () => {
  test('is blamed if it was still running, with what to do about it', async () => {
    const clock = new VirtualClock()
    const started = Promise.withResolvers<void>()
    const outcome = apply(
      ['a', 'b:k', 'c:k'],
      ({ data }) => {
        if (data.name === 'a') return undefined
        started.resolve()
        return new Promise(() => {})
      },
      { deadline: '5s' },
      clock,
    )
    await started.promise
    await clock.advance(4999)
    await clock.advance(1)
    const { failure, blamed } = await outcome
    expect(Object.keys(blamed)).toEqual(['b:k'])
    expect(blamed['b:k']).toMatchObject({ code: 'DEADLINE_EXCEEDED', hint: expect.stringContaining('perform') })
    expect(failure).toMatchObject({ timedOut: true })
  })

  test('in time leaves no timer behind', async () => {
    const clock = new VirtualClock()
    await apply(['a'], (_, tx) => turns(tx, 1), {}, clock)
    expect(clock.pending).toBe(0)
  })
})
