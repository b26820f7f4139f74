import { Queue, Worker } from 'bullmq'
import pg from 'pg'
import type { DrainSubject, Environment, LatencySubject } from '../subjects.ts'
import { job, slices } from '../payload.ts'
import type { Job } from '../payload.ts'
import { applyOnce, countdown, untilEmpty } from './work.ts'

const queueName = 'bench'

type Handle = (job: Job) => Promise<void>

export const drain: DrainSubject[] = [
  drainSubject('bullmq', 24, 'Redis AOF everysec, concurrency 24'),
  drainSubject('bullmq concurrency 100', 100, 'Redis AOF everysec, concurrency 100'),
  { ...drainSubject('bullmq default', 1, 'Redis AOF everysec, concurrency 1'), optional: true },
]

export const effects: DrainSubject[] = [effectsSubject()]

export const latency: LatencySubject[] = [latencySubject()]

function drainSubject(name: string, concurrency: number, settings: string, handle?: Handle): DrainSubject {
  let close = async () => {}
  return {
    name,
    settings,
    needs: ['redis'],
    async prepare(env, { jobs, keys }) {
      const queue = queueOf(env)
      for (const slice of slices(jobs, keys, 1_000)) await queue.addBulk(slice.map((data) => ({ name: 'job', data })))
      await queue.close()
    },
    async drain(env, { jobs }) {
      const queue = queueOf(env)
      await queue.waitUntilReady()
      const { handled, all } = countdown(jobs)
      const worker = workerOf(env, concurrency, async (data) => {
        if (handle) await handle(data)
        handled()
      })
      await worker.waitUntilReady()
      const startedAt = performance.now()
      void worker.run()
      await all
      await untilEmpty(async () => Object.values(await queue.getJobCounts('wait', 'active')).every((n) => n === 0))
      const ms = performance.now() - startedAt
      close = async () => {
        await worker.close()
        await queue.close()
      }
      return ms
    },
    close: () => close(),
  }
}

function effectsSubject(): DrainSubject {
  let pool: pg.Pool | undefined
  const subject = drainSubject('bullmq', 24, 'Redis, 24 jobs, dedup + insert in a transaction', async (data) => {
    const client = await pool!.connect()
    await applyOnce(client, 'bullmq', data).finally(() => client.release())
  })
  return {
    ...subject,
    needs: ['redis', 'postgres'],
    drain(env, backlog) {
      pool = new pg.Pool({ connectionString: env.databaseUrl, max: 24 })
      return subject.drain(env, backlog)
    },
    async close() {
      await subject.close()
      await pool?.end()
    },
  }
}

function latencySubject(): LatencySubject {
  let queue: Queue
  let worker: Worker
  let began: (at: number) => void = () => {}
  return {
    name: 'bullmq',
    settings: 'Redis AOF everysec: add, blocking pop',
    needs: ['redis'],
    async start(env) {
      queue = queueOf(env)
      worker = workerOf(env, 1, async () => began(performance.now()))
      await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()])
      void worker.run()
    },
    async deliver(n) {
      const handler = new Promise<number>((resolve) => (began = resolve))
      const sentAt = performance.now()
      await queue.add('job', job(n, 1))
      const returnedAt = performance.now()
      return { sentAt, returnedAt, startedAt: await handler }
    },
    async close() {
      await worker.close()
      await queue.close()
    },
  }
}

function queueOf(env: Environment): Queue {
  return new Queue(queueName, { connection: env.redis, defaultJobOptions: { removeOnComplete: true } })
}

function workerOf(env: Environment, concurrency: number, handle: Handle): Worker {
  const connection = { ...env.redis, maxRetriesPerRequest: null }
  const worker = new Worker(queueName, (item) => handle(item.data as Job), { connection, concurrency, autorun: false })
  worker.on('error', (error) => process.stderr.write(`bullmq: ${error.message}\n`))
  return worker
}
