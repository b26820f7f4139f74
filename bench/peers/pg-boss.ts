import pg from 'pg'
import { PgBoss } from 'pg-boss'
import type { DrainSubject, Environment, LatencySubject } from '../subjects.ts'
import { job, slices } from '../payload.ts'
import type { Job } from '../payload.ts'
import { countdown, insertEffect, untilEmpty } from './work.ts'

const queue = 'bench'
const tuned = { batchSize: 50, localConcurrency: 24, burstWhenBatchFull: true }

type Settings = Record<string, unknown>
type Handle = Parameters<PgBoss['work']>[2]

export const drain: DrainSubject[] = [
  drainSubject('pg-boss tuned', tuned, 'useListenNotify, batch 50, 24 workers, burst when full'),
  // Fewer workers that take more at a time get in each other's way less.
  drainSubject(
    'pg-boss batches of 500',
    { ...tuned, batchSize: 500, localConcurrency: 4 },
    'the same with batch 500, 4 workers',
  ),
  // One worker that takes 50 jobs every two seconds would need an hour for 100k: the nearest thing that ends.
  {
    ...drainSubject(
      'pg-boss batches only',
      { batchSize: 50, burstWhenBatchFull: true },
      'batch 50, 1 worker, burst when full',
    ),
    optional: true,
  },
]

/** Its own way to exactly once: the batch is completed in the transaction of its effects, an insert per job. */
export const effects: DrainSubject[] = [
  drainSubject(
    'pg-boss transactional',
    { ...tuned, transactional: true },
    'batch 50, 24 workers, batch a transaction',
    insertAll,
  ),
]

export const latency: LatencySubject[] = [
  latencySubject('pg-boss', { localConcurrency: 1 }, 'send in the transaction, useListenNotify, 1 worker'),
  { ...latencySubject('pg-boss tuned', tuned, 'the same with batch 50, 24 workers'), optional: true },
]

function drainSubject(name: string, work: Settings, settings: string, handle?: Handle): DrainSubject {
  let close = async () => {}
  return {
    name,
    settings,
    needs: ['postgres'],
    async prepare(env, { jobs, keys }) {
      const boss = await started(env)
      await boss.createQueue(queue, { notify: true })
      for (const slice of slices(jobs, keys, 5_000))
        await boss.insert(
          queue,
          slice.map((data) => ({ data })),
        )
      await stopped(boss)
    },
    async drain(env, { jobs }) {
      const boss = await started(env)
      const pool = new pg.Pool({ connectionString: env.databaseUrl, max: 1 })
      const { handled, all } = countdown(jobs)
      const startedAt = performance.now()
      await boss.work(queue, work, async (batch, transaction) => {
        await handle?.(batch, transaction)
        batch.forEach(handled)
      })
      await all
      const unfinished = `select from pgboss.job where name = $1 and state < 'completed' limit 1`
      await untilEmpty(async () => (await pool.query(unfinished, [queue])).rowCount === 0)
      const ms = performance.now() - startedAt
      close = async () => {
        await stopped(boss)
        await pool.end()
      }
      return ms
    },
    close: () => close(),
  }
}

function latencySubject(name: string, work: Settings, settings: string): LatencySubject {
  let boss: PgBoss
  let pool: pg.Pool
  let began: (at: number) => void = () => {}
  return {
    name,
    settings,
    needs: ['postgres'],
    async start(env) {
      boss = await started(env)
      pool = new pg.Pool({ connectionString: env.databaseUrl, max: 1 })
      await boss.createQueue(queue, { notify: true })
      await boss.work(queue, work, async () => began(performance.now()))
    },
    async deliver(n) {
      const handler = new Promise<number>((resolve) => (began = resolve))
      const client = await pool.connect()
      await client.query('begin')
      await boss.send(queue, job(n, 1), { db: { executeSql: (text, values) => client.query(text, values) } })
      const sentAt = performance.now()
      await client.query('commit')
      const returnedAt = performance.now()
      client.release()
      return { sentAt, returnedAt, startedAt: await handler }
    },
    async close() {
      await stopped(boss)
      await pool.end()
    },
  }
}

async function insertAll(batch: Parameters<Handle>[0], transaction: Parameters<Handle>[1]): Promise<void> {
  for (const { data } of batch) {
    const {
      eventId,
      data: { employeeId, name, annualSalary },
    } = data as Job
    await transaction.executeSql(insertEffect, [eventId, employeeId, name, annualSalary])
  }
}

async function started(env: Environment): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: env.databaseUrl, max: 26, useListenNotify: true })
  boss.on('error', (error) => process.stderr.write(`pg-boss: ${String(error)}\n`))
  boss.on('warning', (warning) => process.stderr.write(`pg-boss warns: ${JSON.stringify(warning)}\n`))
  return boss.start()
}

function stopped(boss: PgBoss): Promise<void> {
  return boss.stop({ graceful: false, close: true })
}
