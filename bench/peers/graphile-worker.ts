import { Logger, run, runMigrations } from 'graphile-worker'
import pg from 'pg'
import type { DrainSubject, Environment, LatencySubject } from '../subjects.ts'
import { job, slices } from '../payload.ts'
import type { Job } from '../payload.ts'
import { applyOnce, countdown, untilEmpty } from './work.ts'

const concurrency = 24
const tuned = { localQueue: { size: 500, refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0 }
const silent = new Logger(() => () => {})

type Settings = Record<string, unknown>
type Handle = NonNullable<Parameters<typeof run>[0]['taskList']>[string]

export const drain: DrainSubject[] = [
  drainSubject('graphile-worker tuned', tuned, 'localQueue 500, refetch 10 ms, batched completion, 24 jobs'),
  { ...drainSubject('graphile-worker default', {}, '24 jobs'), optional: true },
]

export const effects: DrainSubject[] = [
  drainSubject('graphile-worker tuned', tuned, 'tuned, 24 jobs, dedup + insert in a transaction', (payload, helpers) =>
    helpers.withPgClient((client) => applyOnce(client, 'graphile-worker', payload as Job)),
  ),
]

export const latency: LatencySubject[] = [
  latencySubject('graphile-worker default', {}, 'add_job in the transaction, LISTEN'),
  latencySubject('graphile-worker tuned', tuned, 'the same with localQueue 500, refetch 10 ms'),
]

function drainSubject(name: string, worker: Settings, settings: string, handle: Handle = () => {}): DrainSubject {
  let close = async () => {}
  return {
    name,
    settings,
    needs: ['postgres'],
    async prepare(env, { jobs, keys }) {
      const pool = await migrated(env)
      for (const slice of slices(jobs, keys, 5_000)) {
        await pool.query(
          `select count(*) from graphile_worker.add_jobs(array(
            select row('bench', body, null, null, null, null, null, null)::graphile_worker.job_spec
            from json_array_elements($1::json) body))`,
          [JSON.stringify(slice)],
        )
      }
      await pool.end()
    },
    async drain(env, { jobs }) {
      const pool = await migrated(env)
      const { handled, all } = countdown(jobs)
      const startedAt = performance.now()
      const runner = await start(pool, worker, async (payload, helpers) => {
        await handle(payload, helpers)
        handled()
      })
      await all
      await untilEmpty(
        async () => (await pool.query('select from graphile_worker._private_jobs limit 1')).rowCount === 0,
      )
      const ms = performance.now() - startedAt
      close = async () => {
        await runner.stop()
        await pool.end()
      }
      return ms
    },
    close: () => close(),
  }
}

function latencySubject(name: string, worker: Settings, settings: string): LatencySubject {
  let pool: pg.Pool
  let runner: Awaited<ReturnType<typeof run>>
  let began: (at: number) => void = () => {}
  return {
    name,
    settings,
    needs: ['postgres'],
    async start(env) {
      pool = await migrated(env)
      runner = await start(pool, worker, () => began(performance.now()))
    },
    async deliver(n) {
      const handler = new Promise<number>((resolve) => (began = resolve))
      const client = await pool.connect()
      await client.query('begin')
      await client.query(`select from graphile_worker.add_job('bench', $1::json)`, [JSON.stringify(job(n, 1))])
      const sentAt = performance.now()
      await client.query('commit')
      const returnedAt = performance.now()
      client.release()
      return { sentAt, returnedAt, startedAt: await handler }
    },
    async close() {
      await runner.stop()
      await pool.end()
    },
  }
}

async function migrated(env: Environment): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: env.databaseUrl, max: concurrency + 2 })
  // graphile-worker warns about a pool whose errors nobody hears.
  pool.on('error', () => {})
  pool.on('connect', (client) => void client.on('error', () => {}))
  await runMigrations({ pgPool: pool, logger: silent })
  return pool
}

function start(pgPool: pg.Pool, worker: Settings, handle: Handle) {
  const preset = { worker: { concurrentJobs: concurrency, ...worker } }
  const taskList = { bench: handle }
  return run({ pgPool, preset, taskList, noHandleSignals: true, parsedCronItems: [], logger: silent })
}
