import { sql } from './sql.ts'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import type { Database } from './database.ts'
import { openDatabase } from './database.ts'
import type { Tx } from './transaction.ts'

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

const write = (tx: Tx, note: string) => tx.sql`insert into notes (note) values (${note})`
const read = async () =>
  (await database.sql<{ note: string }>`select note from notes order by place`).map((row) => row.note)
const fail = (why = 'on purpose') => Promise.reject(new Error(why))

describe('a transaction', () => {
  test('keeps all of it and hands on the result', async () => {
    const result = await database.transaction(async (tx) => {
      await write(tx, 'a')
      await write(tx, 'b')
      return 7
    })
    expect(result).toBe(7)
    expect(await read()).toEqual(['a', 'b'])
  })

  test('keeps nothing when its function throws, and throws that on', async () => {
    const failed = database.transaction(async (tx) => {
      await write(tx, 'a')
      await fail('mine')
    })
    await expect(failed).rejects.toThrow('mine')
    expect(await read()).toEqual([])
  })

  test('takes queries side by side', async () => {
    const notes = Array.from({ length: 200 }, (_, index) => `n${index}`)
    await database.transaction((tx) => Promise.all(notes.map((note) => write(tx, note))))
    expect(await read()).toEqual(notes)
  })

  test('is not seen by others before its end', async () => {
    await database.transaction(async (tx) => {
      await write(tx, 'a')
      expect(await read()).toEqual([])
    })
  })

  test('whose failed statement was swallowed does not pretend to have committed', async () => {
    const pretended = database.transaction(async (tx) => {
      await write(tx, 'a')
      await tx.query('select 1 / 0').catch(() => {})
    })
    await expect(pretended).rejects.toMatchObject({
      code: 'TRANSACTION_CLOSED',
      hint: expect.stringContaining('tx.transaction()'),
    })
    expect(await read()).toEqual([])
  })

  test('whose failed statement nobody awaited does not commit either', async () => {
    await expect(database.transaction(async (tx) => void tx.query('select 1 / 0'))).rejects.toThrow()
  })

  test('gives its connection back, whatever happened in it', async () => {
    await using single = await oneConnection()
    await single.transaction(() => fail()).catch(() => {})
    await single.transaction((tx) => tx.query('select 1 / 0')).catch(() => {})
    await single.transaction((tx) => tx.query('select 1 / 0').catch(() => {})).catch(() => {})
    expect(await single.transaction(async (tx) => (await tx.query('select 1 as one')).rows)).toEqual([{ one: 1 }])
    expect(single.pool).toMatchObject({ total: 1, idle: 1, waiting: 0 })
  })

  test('says for whom it is, and so does every part of it', async () => {
    const context = { companyId: 'one', correlationId: 'c' }
    await database.transaction(
      async (tx) => {
        expect(tx.context).toBe(context)
        await tx.transaction(async (inner) => expect(inner.context).toBe(context))
        expect(tx.in({ companyId: 'two' }).context).toEqual({ companyId: 'two' })
      },
      { context },
    )
    await database.transaction(async (tx) => expect(tx.context).toEqual({ companyId: 'default' }))
  })

  test('gives rows as the text that Postgres sent, where that is asked for', async () => {
    const rows = await database.transaction((tx) => tx.raw(sql`select 5::bigint, null, true`))
    expect(rows).toEqual([['5', null, 't']])
  })
})

describe('a query after the end', () => {
  const closed = { code: 'TRANSACTION_CLOSED', hint: expect.stringContaining('await every query') }

  test.each([
    ['a commit', async (tx: Tx) => tx],
    ['a rollback', async (tx: Tx) => Promise.reject(tx)],
  ])('%s is refused', async (_, end) => {
    const tx = (await database.transaction(end).catch((thrown: unknown) => thrown)) as Tx
    await expect(tx.query('select 1')).rejects.toMatchObject(closed)
    await expect(tx.sql`select 1`).rejects.toMatchObject(closed)
    await expect(tx.transaction(async () => {})).rejects.toMatchObject(closed)
    await expect(tx.in({ companyId: 'x' }).query('select 1')).rejects.toMatchObject(closed)
  })

  test('does not end the process when nobody looks at it', async () => {
    const tx = await database.transaction(async (given) => given)
    // Vitest fails the run on a rejection that nobody handles.
    void tx.query('select 1')
    void tx.sql`select 1`
    void tx.raw(sql`select 1`)
    await expect(tx.query('select 1')).rejects.toMatchObject(closed)
  })

  test('of a part is refused, while the whole goes on', async () => {
    await database.transaction(async (tx) => {
      const part = await tx.transaction(async (inner) => inner)
      await expect(write(part, 'late')).rejects.toMatchObject(closed)
      await write(tx, 'in time')
    })
    expect(await read()).toEqual(['in time'])
  })
})

describe('a part of a transaction', () => {
  test('that throws undoes only itself', async () => {
    await database.transaction(async (tx) => {
      await write(tx, 'before')
      await tx.transaction(async (inner) => (await write(inner, 'undone'), fail())).catch(() => {})
      await write(tx, 'after')
    })
    expect(await read()).toEqual(['before', 'after'])
  })

  test('whose statement failed lets the rest go on', async () => {
    await database.transaction(async (tx) => {
      await write(tx, 'a')
      const second = tx.transaction((inner) => write(inner, 'a'))
      await expect(second).rejects.toMatchObject({ code: '23505' })
      await write(tx, 'b')
    })
    expect(await read()).toEqual(['a', 'b'])
  })

  test('can have parts of its own', async () => {
    await database.transaction(async (tx) => {
      await tx.transaction(async (inner) => {
        await write(inner, 'kept')
        await inner.transaction(async (innermost) => (await write(innermost, 'undone'), fail())).catch(() => {})
      })
      const failed = tx.transaction(async (inner) => {
        await inner.transaction((innermost) => write(innermost, 'undone by the outer one'))
        await fail()
      })
      await failed.catch(() => {})
    })
    expect(await read()).toEqual(['kept'])
  })

  test('whose swallowed failure dooms it, fails as a whole', async () => {
    await database.transaction(async (tx) => {
      const part = tx.transaction(async (inner) => {
        await write(inner, 'undone')
        await inner.query('select 1 / 0').catch(() => {})
      })
      await expect(part).rejects.toThrow()
      await write(tx, 'kept')
    })
    expect(await read()).toEqual(['kept'])
  })

  test.each([2, 3, 5])('leaves %i others beside it alone', async (count) => {
    await database.transaction(async (tx) => {
      const parts = Array.from({ length: count }, (_, index) =>
        tx.transaction(async (inner) => {
          await write(inner, `part ${index}`)
          if (index % 2 === 0) await fail()
        }),
      )
      await Promise.allSettled(parts)
    })
    const kept = Array.from({ length: count }, (_, index) => `part ${index}`).filter((_, index) => index % 2)
    expect(await read()).toEqual(kept)
  })

  test('that ends before another beside it fails, is not undone by that', async () => {
    const first = Promise.withResolvers<void>()
    await database.transaction(async (tx) => {
      const failing = tx.transaction(async (inner) => {
        await write(inner, 'undone')
        // Waits for the other one if they can overlap, and does not if they take turns.
        await Promise.race([first.promise, inner.query('select pg_sleep(0.2)')])
        await fail()
      })
      const fine = tx.transaction((inner) => write(inner, 'kept')).then(() => first.resolve())
      await Promise.allSettled([failing, fine])
    })
    expect(await read()).toEqual(['kept'])
  })

  test('that fails does not undo what others write on the whole meanwhile', async () => {
    await database.transaction(async (tx) => {
      const parts = [0, 1, 2].map((index) =>
        tx.transaction(async (inner) => (await write(inner, `undone ${index}`), fail())),
      )
      const writes = Array.from({ length: 20 }, (_, index) =>
        Promise.resolve(parts[index % 3]!.catch(() => {})).then(() =>
          write(tx.in({ companyId: 'x' }), `kept ${index}`),
        ),
      )
      const atOnce = Array.from({ length: 20 }, (_, index) => write(tx.in({ companyId: 'x' }), `also kept ${index}`))
      await Promise.allSettled([...parts, ...writes, ...atOnce])
    })
    expect(await read()).toHaveLength(40)
  })

  test('that outlives its transaction does not reach into the next one on the connection', async () => {
    await using single = await oneConnection()
    const gate = Promise.withResolvers<void>()
    let straggler: Promise<unknown> = Promise.resolve()
    const failed = single.transaction(async (tx) => {
      const entered = Promise.withResolvers<void>()
      straggler = tx.transaction(async (inner) => {
        await inner.query('select 1')
        entered.resolve()
        await gate.promise
      })
      straggler.catch(() => {})
      await entered.promise
      await fail()
    })
    await expect(failed).rejects.toThrow('on purpose')
    await single.transaction(async (tx) => {
      await write(tx, 'a')
      gate.resolve()
      await straggler.catch(() => {})
      await write(tx, 'b')
    })
    expect(await read()).toEqual(['a', 'b'])
  })
})

describe('a deadline', () => {
  const sleepers = () =>
    database.sql`select pid from pg_stat_activity where query like 'select pg_sleep(61)%' and pid <> pg_backend_pid()`

  test('ends a transaction that is stuck in a statement, the statement included', async () => {
    const stuck = database.transaction(
      async (tx) => {
        await write(tx, 'a')
        await tx.query('select pg_sleep(61)')
      },
      { deadlineMs: 100 },
    )
    await expect(stuck).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' })
    await waitFor(async () => (await sleepers()).length === 0, { what: 'the backend is gone' })
    expect(await read()).toEqual([])
    await database.transaction((tx) => write(tx, 'the row is free again'))
  })

  test('ends one that is stuck elsewhere, and what it does later is refused', async () => {
    const never = Promise.withResolvers<void>()
    let late: Promise<unknown> | undefined
    const stuck = database.transaction(
      async (tx) => {
        await never.promise
        late = write(tx, 'late')
        await late
      },
      { deadlineMs: 50 },
    )
    await expect(stuck).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' })
    never.resolve()
    await waitFor(() => late !== undefined)
    await expect(late).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
  })

  test('on a pool of one leaves a pool of one', async () => {
    await using single = await oneConnection()
    const stuck = single.transaction((tx) => tx.query('select pg_sleep(61)'), { deadlineMs: 50 })
    await expect(stuck).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' })
    expect(await single.sql`select 1 as one`).toEqual([{ one: 1 }])
    await waitFor(async () => (await sleepers()).length === 0, { what: 'the backend is gone' })
  })

  test('that is met changes nothing', async () => {
    await database.transaction((tx) => write(tx, 'a'), { deadlineMs: 5000 })
    expect(await read()).toEqual(['a'])
  })
})

describe('a conflict with another transaction', () => {
  test('that cannot be put in order with it is run again', async () => {
    let runs = 0
    const bothHaveRead = barrier(2)
    const countAndWrite = (note: string) =>
      database.transaction(
        async (tx) => {
          runs++
          const [row] = await tx.sql<{ count: number }>`select count(*)::int as count from notes`
          if (runs <= 2) await bothHaveRead()
          await write(tx, `${note} saw ${row!.count}`)
        },
        { isolation: 'serializable' },
      )
    await Promise.all([countAndWrite('one'), countAndWrite('other')])
    expect(runs).toBe(3)
    expect((await read()).map((note) => note.split(' ').at(-1)).sort()).toEqual(['0', '1'])
  })

  test('that deadlocks is run again', async () => {
    await database.sql`insert into notes (note) values ('x'), ('y')`
    let runs = 0
    const bothHaveLocked = barrier(2)
    const lockInOrder = (...notes: string[]) =>
      database.transaction(async (tx) => {
        runs++
        await tx.query("set local deadlock_timeout = '20ms'")
        await tx.sql`select from notes where note = ${notes[0]} for update`
        if (runs <= 2) await bothHaveLocked()
        await tx.sql`select from notes where note = ${notes[1]} for update`
      })
    await Promise.all([lockInOrder('x', 'y'), lockInOrder('y', 'x')])
    expect(runs).toBe(3)
  })

  test('is told after as many tries as were given', async () => {
    let runs = 0
    const always = database.transaction(
      async (tx) => {
        runs++
        await tx.query("do $$ begin raise exception 'again' using errcode = '40001'; end $$")
      },
      { retries: 2 },
    )
    await expect(always).rejects.toMatchObject({ code: '40001' })
    expect(runs).toBe(3)
  })

  test('is the only failure that is run again', async () => {
    let runs = 0
    await expect(database.transaction(async () => (runs++, fail()))).rejects.toThrow()
    expect(runs).toBe(1)
  })
})

describe('who listens for what was emitted', () => {
  test('hears of a commit, and of nothing else', async () => {
    const heard: string[][] = []
    const stop = database.onEmitted((types) => heard.push([...types]))
    await database.transaction(async (tx) => {
      tx.emitted('a.b')
      await tx.transaction(async (inner) => inner.emitted('c.d'))
      expect(heard).toEqual([])
    })
    await database.transaction(async (tx) => (tx.emitted('e.f'), fail())).catch(() => {})
    await database.transaction(async (tx) => tx.query('select 1'))
    stop()
    await database.transaction(async (tx) => tx.emitted('g.h'))
    expect(heard).toEqual([['a.b', 'c.d']])
  })
})

/** Resolves for all once so many have come. */
function barrier(size: number): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let here = 0
  return () => (++here === size && resolve(), promise)
}

async function oneConnection(): Promise<Database & AsyncDisposable> {
  const single = await openDatabase({ url: home.url, max: 1, acquireTimeoutMs: 5000 })
  return Object.assign(single, { [Symbol.asyncDispose]: () => single.close() })
}
