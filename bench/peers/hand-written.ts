import pg from 'pg'
import type { DrainSubject } from '../subjects.ts'
import { job, slices } from '../payload.ts'
import type { Job } from '../payload.ts'
import { applyOnce, effectOnce } from './work.ts'

const connections = 10

/** What a careful team writes first: one transaction a message, ten connections, plain `pg`. */
export const effects: DrainSubject[] = [fromMemory(), fromTable()]

/** The broker costs nothing here: the best a message-a-transaction loop can reach on any transport. */
function fromMemory(): DrainSubject {
  return {
    name: 'hand-written loop',
    settings: 'message a transaction, in memory, 10 connections',
    needs: ['postgres'],
    async prepare() {},
    async drain(env, { jobs, keys }) {
      let next = 0
      return onEveryConnection(env.databaseUrl, async (client) => {
        while (next < jobs) await applyOnce(client, 'hand-written', job(next++, keys))
      })
    },
    async close() {},
  }
}

/** The same with its queue in Postgres: the row is taken in the transaction of its effect. */
function fromTable(): DrainSubject {
  return {
    name: 'hand-written queue table',
    settings: 'skip locked, message a transaction, 10 connections',
    needs: ['postgres'],
    async prepare(env, { jobs, keys }) {
      const client = new pg.Client(env.databaseUrl)
      await client.connect()
      await client.query(
        'create table bench_queue (id bigint generated always as identity primary key, body jsonb not null)',
      )
      for (const slice of slices(jobs, keys, 5_000)) {
        await client.query('insert into bench_queue (body) select jsonb_array_elements($1::jsonb)', [
          JSON.stringify(slice),
        ])
      }
      await client.end()
    },
    async drain(env) {
      return onEveryConnection(env.databaseUrl, async (client) => {
        while (await takeOne(client));
      })
    },
    async close() {},
  }
}

async function takeOne(client: pg.PoolClient): Promise<boolean> {
  await client.query('begin')
  const taken = await client.query<{ body: Job }>(
    `delete from bench_queue where id =
      (select id from bench_queue order by id limit 1 for update skip locked) returning body`,
  )
  const message = taken.rows[0]
  if (message) await effectOnce(client, 'hand-written', message.body)
  await client.query('commit')
  return message !== undefined
}

async function onEveryConnection(url: string, work: (client: pg.PoolClient) => Promise<void>): Promise<number> {
  const pool = new pg.Pool({ connectionString: url, max: connections })
  const clients = await Promise.all(Array.from({ length: connections }, () => pool.connect()))
  const startedAt = performance.now()
  await Promise.all(clients.map(work))
  const ms = performance.now() - startedAt
  for (const client of clients) client.release()
  await pool.end()
  return ms
}
