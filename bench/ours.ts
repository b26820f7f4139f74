import { z } from 'zod'
import {
  defineEvent,
  emit as emitOne,
  emitAll,
  engineMigrations,
  migrate,
  on,
  openDatabase,
  routeEvents,
  startHints,
  startRelay,
  startWorker,
} from '../src/index.ts'
import type { Database, Event, EventSubscription, Hints, Tx, Worker } from '../src/index.ts'
import { postgresTransport } from '../src/transports/postgres/index.ts'
import { job, slices } from './payload.ts'
import type { Job } from './payload.ts'
import type { Delivery, DrainSubject, EmitSubject, Environment, LatencySubject } from './subjects.ts'

/** Our side of every benchmark: the engine as an application uses it, with its default settings. */

const schema = z.object({
  employeeId: z.string(),
  name: z.string(),
  department: z.string(),
  annualSalary: z.int(),
})
type Data = z.output<typeof schema>

const anyOrder = defineEvent('employee.created', { data: schema })
const byKey = defineEvent('employee.created', { data: schema, key: (data) => data.employeeId })
const consumer = 'payroll.employee.created'

interface Setup {
  database: Database
  hints: Hints
  worker?: Worker
}

async function open(env: Environment, max = 10): Promise<Setup> {
  const database = await openDatabase({ url: env.databaseUrl, max })
  await migrate(database, [engineMigrations])
  return { database, hints: await startHints(database) }
}

async function close({ worker, hints, database }: Setup): Promise<void> {
  await worker?.drain()
  await hints.close()
  await database.close()
}

async function work(setup: Setup, subscription: EventSubscription): Promise<void> {
  const { database, hints } = setup
  setup.worker = await startWorker({
    database,
    transport: postgresTransport({ database, hints }),
    subscriptions: [subscription],
  })
}

async function fill(
  env: Environment,
  type: typeof anyOrder,
  jobs: number,
  keys: number,
  to: 'database' | 'broker',
): Promise<void> {
  const setup = await open(env)
  const { database, hints } = setup
  await routeEvents(database, to)
  await postgresTransport({ database, hints }).ensure({ subscriptions: [{ name: consumer, events: [type.name] }] })
  for (const slice of slices(jobs, keys, 1000)) {
    await database.transaction((tx) =>
      emitAll(
        tx,
        slice.map(({ data }) => [type, data] as const),
      ),
    )
  }
  await close(setup)
}

type Handler = (event: Event<Data>, tx: Tx) => unknown

function drainSubject(name: string, settings: string, type: typeof anyOrder, handler: Handler): DrainSubject {
  return {
    name,
    settings,
    needs: ['postgres'],
    prepare: (env, { jobs, keys }) => fill(env, type, jobs, keys, 'database'),
    async drain(env, { jobs }) {
      const setup = await open(env)
      let left = jobs
      const { promise: drained, resolve } = Promise.withResolvers<void>()
      const startedAt = performance.now()
      const handle: Handler = (event, tx) => {
        if (--left === 0) resolve()
        return handler(event, tx)
      }
      await work(setup, on(type, { name: consumer, handle }))
      await drained
      // The last batch's commit is part of it.
      await setup.worker?.drain()
      const ms = performance.now() - startedAt
      await refuseLeftovers(setup.database)
      await close(setup)
      return ms
    },
    async close() {},
  }
}

async function refuseLeftovers(database: Database): Promise<void> {
  const [row] = await database.sql<{ left: number }>`
    select (select count(*) from kerp.deliveries)::int + (select count(*) from kerp.outbox_events)::int as left`
  if (row?.left) throw new Error(`${row.left} messages are left: it was not drained`)
}

const nothing: Handler = () => {}
const insertEffect: Handler = ({ eventId, data }, tx) => tx.sql`
  insert into bench_effects (event_id, employee_id, name, annual_salary)
  values (${eventId}, ${data.employeeId}, ${data.name}, ${data.annualSalary})`

export const drain: DrainSubject[] = [
  drainSubject('kerp', 'defaults', anyOrder, nothing),
  drainSubject('kerp by key', 'defaults, order kept within each key', byKey, nothing),
]

/** One row into bench_effects per message, exactly once. */
export const effects: DrainSubject[] = [
  drainSubject('kerp', 'defaults', anyOrder, insertEffect),
  drainSubject('kerp by key', 'defaults, order kept within each key', byKey, insertEffect),
]

export const latency: LatencySubject[] = [inOneProcess(), acrossProcesses()]

/** The worker hears of the commit in its own process. */
function inOneProcess(): LatencySubject {
  let setup: Setup
  return latencySubject('kerp', 'emit in the transaction', async (env, handle) => {
    setup = await open(env)
    await work(setup, on(anyOrder, { name: consumer, handle }))
    return { committer: setup.database, close: () => close(setup) }
  })
}

/** It hears of it from Postgres: the committing side has connections of its own, as another process would. */
function acrossProcesses(): LatencySubject {
  return latencySubject('kerp by notification', 'the commit is heard of through LISTEN', async (env, handle) => {
    const setup = await open(env)
    await work(setup, on(anyOrder, { name: consumer, handle }))
    const other = await open(env)
    return { committer: other.database, close: async () => (await close(setup), close(other)) }
  })
}

interface Ends {
  committer: Database
  close: () => Promise<void>
}

function latencySubject(
  name: string,
  settings: string,
  begin: (env: Environment, handle: Handler) => Promise<Ends>,
): LatencySubject {
  let ends: Ends
  let begun = (_at: number) => {}
  return {
    name,
    settings,
    needs: ['postgres'],
    async start(env) {
      ends = await begin(env, () => begun(performance.now()))
      await routeEvents(ends.committer, 'database')
    },
    async deliver(n): Promise<Delivery> {
      const started = new Promise<number>((resolve) => (begun = resolve))
      let sentAt = 0
      await ends.committer.transaction(async (tx) => {
        await emitOne(tx, anyOrder, job(n, 1).data)
        sentAt = performance.now()
      })
      const returnedAt = performance.now()
      return { sentAt, returnedAt, startedAt: await started }
    },
    close: () => ends.close(),
  }
}

/** One row into bench_business per transaction. */
export const emit: EmitSubject[] = [emitSubject()]

function emitSubject(): EmitSubject {
  let setup: Setup
  return {
    name: 'kerp',
    settings: 'insert one row, with one subscriber',
    needs: ['postgres'],
    async start(env, concurrency) {
      setup = await open(env, concurrency + 2)
      const { database, hints } = setup
      await routeEvents(database, 'database')
      await postgresTransport({ database, hints }).ensure({
        subscriptions: [{ name: consumer, events: [anyOrder.name] }],
      })
    },
    async transaction(n, withEmit) {
      const { data } = job(n, 100)
      await setup.database.transaction(async (tx) => {
        // Sent together, as our own commands do: neither needs the answer of the other.
        await Promise.all([insertBusiness(tx, data), withEmit && emitOne(tx, anyOrder, data)])
      })
    },
    close: () => close(setup),
  }
}

function insertBusiness(tx: Tx, data: Job['data']): Promise<unknown> {
  return tx.sql`
    insert into bench_business (employee_id, name, annual_salary) values (${data.employeeId}, ${data.name}, ${data.annualSalary})`
}

/** The first is compared with every following one: the same number of messages published without an outbox. */
export const relay: DrainSubject[] = [relaySubject(), publishSubject()]

function relaySubject(): DrainSubject {
  return {
    name: 'kerp relay',
    settings: 'outbox rows to the Postgres transport',
    needs: ['postgres'],
    prepare: (env, { jobs, keys }) => fill(env, anyOrder, jobs, keys, 'broker'),
    async drain(env) {
      const setup = await open(env)
      const { database, hints } = setup
      const startedAt = performance.now()
      const running = startRelay({ database, transport: postgresTransport({ database, hints }), hints })
      while (await hasOutbox(database)) await new Promise((resolve) => setTimeout(resolve, 5))
      const ms = performance.now() - startedAt
      await running.stop()
      await close(setup)
      return ms
    },
    async close() {},
  }
}

async function hasOutbox(database: Database): Promise<boolean> {
  const rows = await database.sql`select from kerp.outbox_events limit 1`
  return rows.length > 0
}

function publishSubject(): DrainSubject {
  return {
    name: 'windowed publish',
    settings: "the transport's own publish, batches of 1,000, 8 at a time",
    needs: ['postgres'],
    prepare: (env, { keys }) => fill(env, anyOrder, 0, keys, 'broker'),
    async drain(env, { jobs, keys }) {
      const setup = await open(env)
      const { database, hints } = setup
      const transport = postgresTransport({ database, hints })
      const batches = slices(jobs, keys, 1000)
      const startedAt = performance.now()
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          for (const batch of batches) await transport.publish(batch.map(toEnvelope))
        }),
      )
      const ms = performance.now() - startedAt
      await close(setup)
      return ms
    },
    async close() {},
  }
}

function toEnvelope({ eventId, eventType, data }: Job) {
  return { eventId, eventType, timestamp: new Date().toISOString(), data, version: 1, key: null, companyId: 'default' }
}
