import { z } from 'zod'
import type { Database, DatabaseOptions } from '../../src/engine/database/database.ts'
import { openDatabase } from '../../src/engine/database/database.ts'
import { migrate } from '../../src/engine/database/migrate.ts'
import type { Tx } from '../../src/engine/database/transaction.ts'
import { engineMigrations } from '../../src/engine/engine.ts'
import { emitAll } from '../../src/engine/outbox/emit.ts'
import { startHints } from '../../src/engine/outbox/hints.ts'
import { routeEvents } from '../../src/engine/outbox/routes.ts'
import { silentObserver } from '../../src/engine/telemetry/observer.ts'
import type { Transport } from '../../src/engine/transport.ts'
import { listDeadLetters, showDeadLetter } from '../../src/engine/worker/dead-letters.ts'
import type { DeadLetterDetail } from '../../src/engine/worker/dead-letters.ts'
import type { EventSubscription } from '../../src/engine/worker/subscription.ts'
import type { Worker } from '../../src/engine/worker/worker.ts'
import { startWorker } from '../../src/engine/worker/worker.ts'
import { sleep, systemClock } from '../../src/kernel/clock.ts'
import { defineEvent } from '../../src/kernel/event.ts'
import type { DataOf } from '../../src/kernel/event.ts'
import { testDatabase } from '../../src/testing/postgres.ts'
import { waitFor } from '../../src/testing/wait.ts'
import { postgresTransport } from '../../src/transports/postgres/index.ts'

/** What happens in these tests: something to be done in the way that `act` says. */
export const Asked = defineEvent('chaos.asked', {
  data: z.object({ key: z.string(), number: z.number(), act: z.string() }),
  key: ({ key }) => key,
})
export type Asked = DataOf<typeof Asked>

/** The effect all handlers here have. No constraint: what is done twice must be seen, not refused. */
const effectsTable = `create table if not exists effects (
  place bigint generated always as identity, consumer text not null, key text not null, number int not null, note text)`

export interface Effect {
  readonly key: string
  readonly number: number
  readonly note: string | null
}

export async function takeEffect(tx: Tx, consumer: string, { key, number }: Asked, note?: string): Promise<void> {
  await tx.sql`insert into effects (consumer, key, number, note) values (${consumer}, ${key}, ${number}, ${note ?? null})`
}

export interface EngineOptions extends Partial<DatabaseOptions> {
  /** Consumers that are declared, but not worked on by this process. */
  readonly declaredOnly?: boolean
}

/** The machinery in this process, on a database of its own unless a url is given. */
export interface Engine extends AsyncDisposable {
  readonly url: string
  readonly database: Database
  readonly transport: Transport
  readonly worker: Worker | undefined
  /** What the machinery told of failures that concern no single event. */
  readonly failures: readonly Error[]
  /** Emits all in one transaction, so that they are taken in one batch. */
  ask(...asked: Partial<Asked>[]): Promise<string[]>
  /** In the order they were made. */
  effects(consumer?: string): Promise<Effect[]>
  deadLetters(): Promise<DeadLetterDetail[]>
  /** Waits until nothing is left to do. */
  settled(timeoutMs?: number): Promise<void>
}

export async function openEngine(
  subscriptions: readonly EventSubscription[],
  { declaredOnly = false, ...options }: EngineOptions = {},
): Promise<Engine> {
  await using opened = new AsyncDisposableStack()
  const unhandled = catchUnhandled(opened)
  const home = options.url === undefined ? await testDatabase() : undefined
  if (home) opened.defer(() => home.drop())
  const database = await openOn(options, home)
  opened.defer(() => within(5000, database.close()))
  await database.query(effectsTable)

  const failures: Error[] = []
  const hints = await startHints(database, (error) => failures.push(error))
  opened.defer(() => hints.close())
  const transport = postgresTransport({ database, hints })
  await transport.ensure({ subscriptions: subscriptions.map(({ name, type }) => ({ name, events: [type.name] })) })
  await routeEvents(database, 'database')
  const observer = { ...silentObserver, failed: (_: string, error: Error) => void failures.push(error) }
  const worker = declaredOnly ? undefined : await startWorker({ database, transport, subscriptions, observer })
  if (worker) opened.defer(() => within(5000, worker.drain(1000)))

  const running = opened.move()
  return {
    url: database.url,
    database,
    transport,
    worker,
    failures,
    ask: (...asked) =>
      database.transaction((tx) =>
        emitAll(
          tx,
          asked.map((one, index) => [Asked, { key: `key-${index}`, number: index, act: 'do', ...one }] as const),
        ),
      ),
    effects: (consumer = '') => database.sql<Effect>`
      select key, number, note from effects where ${consumer} in ('', consumer) order by place`,
    deadLetters: () => readDeadLetters(database),
    settled: (timeoutMs = 10_000) => waitUntilSettled(database, failures, timeoutMs),
    async [Symbol.asyncDispose]() {
      await running.disposeAsync()
      if (unhandled.length) throw new AggregateError(unhandled, `nobody looked at: ${String(unhandled[0])}`)
    },
  }
}

async function openOn(options: Partial<DatabaseOptions>, home: Awaited<ReturnType<typeof testDatabase>> | undefined) {
  const given = { max: 5, acquireTimeoutMs: 5000, ...options }
  if (home) return home.open(given)
  const database = await openDatabase({ ...given, url: options.url! })
  await migrate(database, [engineMigrations])
  return database
}

/** When a test has failed, cleaning up may hang for the same reason, and must not hide it. */
const within = (ms: number, work: Promise<void>) => Promise.race([work, sleep(systemClock, ms)])

/** A promise that fails while nobody looks ends a process: here it fails the test it belongs to, and no other. */
function catchUnhandled(until: AsyncDisposableStack): unknown[] {
  const caught: unknown[] = []
  const others = process.listeners('unhandledRejection')
  const note = (reason: unknown) => void caught.push(reason)
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', note)
  until.defer(() => {
    process.off('unhandledRejection', note)
    for (const other of others) process.on('unhandledRejection', other)
  })
  return caught
}

async function readDeadLetters(database: Database): Promise<DeadLetterDetail[]> {
  const { items } = await listDeadLetters(database, { limit: 100 })
  const details = await Promise.all(items.map(({ id }) => showDeadLetter(database, id)))
  return details.filter((detail) => detail !== undefined)
}

interface Left {
  readonly deliveries: number
  readonly outbox: number
  readonly last_error: string | null
}

async function waitUntilSettled(database: Database, failures: readonly Error[], timeoutMs: number): Promise<void> {
  let left: Left | undefined
  await waitFor(
    async () => {
      ;[left] = await database.sql<Left>`
        select (select count(*)::int from kerp.deliveries) as deliveries, (select max(last_error) from kerp.deliveries) as last_error,
          (select count(*)::int from kerp.outbox_events) as outbox`
      return left?.deliveries === 0 && left.outbox === 0
    },
    {
      timeoutMs,
      everyMs: 20,
      what: () => `nothing is left to do: ${JSON.stringify(left)}, after ${String(failures.at(-1))}`,
    },
  )
}
