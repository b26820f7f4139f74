import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openProxy } from '../../testing/proxy.ts'
import type { TestDatabase } from '../../testing/postgres.ts'
import { testDatabase } from '../../testing/postgres.ts'
import { waitFor } from '../../testing/wait.ts'
import type { Database, DatabaseOptions } from './database.ts'
import { openDatabase } from './database.ts'
import { sql } from './sql.ts'

let home: TestDatabase
beforeAll(async () => {
  home = await testDatabase()
})
afterAll(() => home.drop())

async function open(options: Partial<DatabaseOptions> = {}): Promise<Database & AsyncDisposable> {
  const database = await openDatabase({ url: home.url, acquireTimeoutMs: 5000, ...options })
  return Object.assign(database, { [Symbol.asyncDispose]: () => database.close() })
}

describe('values', () => {
  test('bigint columns are bigints, beyond what a float can hold', async () => {
    await using database = await open()
    const amount = 9_007_199_254_740_993n
    expect(
      await database.sql`select ${amount}::bigint as amount, count(*) as count from generate_series(1, 3)`,
    ).toEqual([{ amount, count: 3n }])
    expect(await database.transaction((tx) => tx.sql`select ${amount}::bigint as amount`)).toEqual([{ amount }])
    expect((await database.query('select 5::bigint as n, null::bigint as none')).rows).toEqual([{ n: 5n, none: null }])
  })

  test('text comes back as it went in', async () => {
    await using database = await open()
    for (const text of ['', "O'Neill", '"; drop table t; --', '김하늘', '👩‍👩‍👧', '\\', '$1', '\n\t']) {
      expect(await database.sql`select ${text}::text as text`).toEqual([{ text }])
    }
  })

  test('a statement made of pieces runs', async () => {
    await using database = await open()
    const rows = await database.run(
      sql`select n::int from generate_series(${1}::int, ${9}::int) n where ${sql`n % ${4}::int = 0`}`,
    )
    expect(rows).toEqual([{ n: 4 }, { n: 8 }])
  })
})

test('a failed statement is told as Postgres told it, and costs nobody the connection', async () => {
  await using database = await open({ max: 1 })
  await expect(database.sql`select 1 / 0`).rejects.toMatchObject({ code: '22012' })
  await expect(database.query('rubbish')).rejects.toMatchObject({ code: '42601' })
  expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
})

test('when no connection becomes free in time, says how many are in use and what to do', async () => {
  await using database = await open({ max: 2, acquireTimeoutMs: 100 })
  const free = Promise.withResolvers<void>()
  const holders = [1, 2].map(() => database.transaction(() => free.promise))
  await waitFor(() => database.pool.total === 2)
  const exhausted = {
    code: 'POOL_EXHAUSTED',
    message: expect.stringContaining('all 2'),
    hint: expect.stringContaining('KERP_POOL'),
  }
  await expect(database.sql`select 1`).rejects.toMatchObject(exhausted)
  await expect(database.transaction(async () => {})).rejects.toMatchObject(exhausted)
  free.resolve()
  await Promise.all(holders)
  expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
})

test('a connection of its own is none of the pool', async () => {
  await using database = await open({ max: 1 })
  const own = await database.connect()
  expect((await own.query('select 5::bigint as n')).rows).toEqual([{ n: 5n }])
  expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
  await own.end()
})

describe('a connection that is lost', () => {
  const kill = (database: Database, application: string) =>
    database.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${application}`

  test('while idle is replaced', async () => {
    await using admin = await open()
    const errors: Error[] = []
    await using database = await open({ applicationName: 'kerp-idle', onError: (error) => errors.push(error) })
    await kill(admin, 'kerp-idle')
    await waitFor(() => errors.length > 0, { what: 'the loss is told' })
    expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  test('in the middle of a transaction fails that one, and not the next', async () => {
    await using admin = await open()
    await using database = await open({ applicationName: 'kerp-busy', max: 1 })
    const lost = database.transaction(async (tx) => {
      await tx.query('select 1')
      await kill(admin, 'kerp-busy')
      await tx.query('select 1')
    })
    await expect(lost).rejects.toThrow()
    expect(await database.transaction((tx) => tx.sql`select 1 as one`)).toEqual([{ one: 1 }])
  })
})

describe('a server that cannot be reached is told with its address and a fitting hint, and without the password', () => {
  const changed = (changes: Partial<URL>) => Object.assign(new URL(home.url), changes).toString()

  async function failureOf(url: string) {
    const failure = openDatabase({ url, acquireTimeoutMs: 5000 })
    await expect(failure).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' })
    return failure.catch((error: unknown) => error as { message: string; hint: string; cause: { code?: string } })
  }

  test('nobody listens on the port', async () => {
    const proxy = await openProxy(1)
    await proxy.close()
    const url = changed({ host: `127.0.0.1:${proxy.port}`, password: 'secret' })
    const { message, hint } = (await failureOf(url)) as { message: string; hint: string }
    expect(message).toContain(`127.0.0.1:${proxy.port}`)
    expect(message).not.toContain('secret')
    expect(hint).toMatch(/PostgreSQL runs there/)
  })

  test('nobody listens on the port of localhost, which has two addresses', async () => {
    const proxy = await openProxy(1)
    await proxy.close()
    const { message } = (await failureOf(changed({ host: `localhost:${proxy.port}` }))) as { message: string }
    expect(message).toMatch(/ECONNREFUSED/)
  })

  test('the database does not exist', async () => {
    const { message, hint } = (await failureOf(changed({ pathname: '/nowhere' }))) as { message: string; hint: string }
    expect(message).toContain('"nowhere" does not exist')
    expect(hint).toContain('create the database')
  })

  test('there is no such host', async () => {
    const { hint } = (await failureOf(changed({ hostname: 'no-such-host.invalid' }))) as { hint: string }
    expect(hint).toContain('host name')
  })

  test('the password is wrong', async () => {
    const { message, hint } = (await failureOf(changed({ password: 'wrong-secret' }))) as {
      message: string
      hint: string
    }
    expect(message).not.toContain('wrong-secret')
    expect(hint).toContain('password')
  })

  test('the user is unknown', async () => {
    const { hint } = (await failureOf(changed({ username: 'nobody-i-know' }))) as { hint: string }
    expect(hint).toContain('user')
  })
})

test('a server that comes back is reached again, after whoever can has been asked to start it', async () => {
  const proxy = await openProxy(Number(new URL(home.url).port))
  const url = Object.assign(new URL(home.url), { host: `127.0.0.1:${proxy.port}` }).toString()
  let asked = 0
  {
    await using database = await open({ url, revive: async () => void asked++ })
    proxy.cut()
    await waitFor(() => database.pool.total === 0, { what: 'the loss is noticed' })
    await expect(database.sql`select 1`).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' })
    expect(asked).toBe(1)
    proxy.mend()
    expect(await database.sql`select 1 as one`).toEqual([{ one: 1 }])
  }
  await proxy.close()
})
