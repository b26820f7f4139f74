import type { FastifyInstance } from 'fastify'
import { isConnectionError } from '../engine/database/connection.ts'
import type { Database } from '../engine/database/database.ts'
import { migrate } from '../engine/database/migrate.ts'
import { checkPort, closeServer, listen } from '../engine/http/listen.ts'
import type { Hints } from '../engine/outbox/hints.ts'
import { startHints } from '../engine/outbox/hints.ts'
import { startHousekeeping } from '../engine/outbox/housekeeping.ts'
import type { EngineDepth } from '../engine/outbox/depth.ts'
import { outboxDepth } from '../engine/outbox/depth.ts'
import { startRelay } from '../engine/outbox/relay.ts'
import { routeEvents } from '../engine/outbox/routes.ts'
import { createMetrics } from '../engine/telemetry/metrics.ts'
import type { Observer } from '../engine/telemetry/observer.ts'
import { observers } from '../engine/telemetry/observer.ts'
import type { Transport } from '../engine/transport.ts'
import { guardAgainstExit } from '../engine/worker/exit-guard.ts'
import type { EventSubscription } from '../engine/worker/subscription.ts'
import { declare, startWorker } from '../engine/worker/worker.ts'
import { sleep, systemClock } from '../kernel/clock.ts'
import type { Clock } from '../kernel/clock.ts'
import { isKerpError, messageOf } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { postgresTransport } from '../transports/postgres/index.ts'
import type { Config } from './config.ts'
import { openConfigured, patienceFor, startPatienceMs } from './database.ts'
import { buildServer } from './http.ts'
import type { Log } from './log.ts'
import { failureLog } from './log.ts'
import { migrations, modules } from './modules.ts'
import { loggingObserver } from './observe.ts'
import { createReadiness } from './readiness.ts'

export interface App {
  /** Where the API is; undefined when this process serves none. */
  readonly address: string | undefined
  readonly database: Database
  /** The embedded PostgreSQL's version; undefined when the database is somebody else's. */
  readonly embeddedVersion: string | undefined
  /** Reads how much is still to do. */
  backlog(): Promise<number>
  /** Finishes what is under way, in the reverse order of the start. */
  stop(): Promise<void>
}

export interface StartOptions {
  readonly log: Log
  readonly clock?: Clock
  /** Listens besides the metrics and the log. */
  readonly observer?: Observer
  /** Gives up waiting for a database that is not there. */
  readonly signal?: AbortSignal
}

const restartMs = 500
/** Opening gives up a moment before its patience ends, and then this must not begin again. */
const startRetryMs = 1_000
const httpGraceMs = 4_000
const workerGraceMs = 8_000

/** Starts; when the database goes away meanwhile, once more from the beginning. */
export async function start(config: Config, options: StartOptions): Promise<App> {
  const { clock = systemClock, log, signal } = options
  const startedAt = clock.monotonic()
  for (;;) {
    try {
      return await startOnce(config, options)
    } catch (error) {
      // Opening has a patience of its own; this is for what was lost after that.
      const wasLost = isConnectionError(error) && !isKerpError(error)
      const comesBack = wasLost || patienceFor(error, startPatienceMs) > 0
      if (!comesBack || signal?.aborted || clock.monotonic() - startedAt > startPatienceMs - 2 * startRetryMs)
        throw error
      log.info(`${messageOf(error)}; starting again`)
      await sleep(clock, restartMs, signal)
    }
  }
}

/** Wires everything together, from the ground up. */
async function startOnce(config: Config, options: StartOptions): Promise<App> {
  const { log, clock = systemClock, observer, signal } = options
  // Whatever fails below, what was started until then is stopped again.
  await using started = new AsyncDisposableStack()
  const failed = failureLog(log, clock)
  const onError = (error: Error) => failed('database', error)

  const listens = config.roles.includes('api') || config.portChosen
  if (listens) await checkPort(config)

  const say = (line: string) => log.info(line)
  const opened = await openConfigured(config, started, { clock, say, onError, signal, patienceMs: startPatienceMs })
  const { database, embedded } = opened
  await migrate(database, migrations, say)

  const broker = await connectBroker({ database, clock, onError }, started)
  const metrics = createMetrics({ readDepth: () => outboxDepth(database) })
  const readiness = createReadiness({ database, clock })
  const watching = observers([metrics.observer, loggingObserver(log, failed), ...(observer ? [observer] : [])])
  await startRoles(config, started, { ...broker, database, clock, observer: watching, log })

  let address: string | undefined
  if (listens) {
    const withApi = config.roles.includes('api')
    const server = buildServer({ database, clock, newId, log, failed, metrics, readiness, withApi })
    address = await open(server, config)
    started.defer(() => step(log, 'finishing requests', () => closeServer(server, httpGraceMs)))
  }
  readiness.running()

  const running = started.move()
  return {
    address,
    database,
    embeddedVersion: embedded?.version,
    backlog: async () => sumUp(await outboxDepth(database)),
    async stop() {
      readiness.stopping()
      await running.disposeAsync()
    },
  }
}

interface Broker {
  readonly hints: Hints
  readonly transport: Transport
  readonly subscriptions: readonly EventSubscription[]
}

async function connectBroker(
  { database, clock, onError }: { database: Database; clock: Clock; onError: (error: Error) => void },
  started: AsyncDisposableStack,
): Promise<Broker> {
  const hints = await startHints(database, onError)
  started.defer(() => hints.close())
  const transport = postgresTransport({ database, hints, onError })
  started.defer(() => transport.close())
  const subscriptions = modules.flatMap((module) => module.handlers({ database, clock, newId }))
  // Also by a process that only emits: an event finds its consumers although none of them has ever run.
  await transport.ensure({ subscriptions: subscriptions.map(declare) })
  await routeEvents(database, 'database')
  return { hints, transport, subscriptions }
}

interface RoleParts extends Broker {
  readonly database: Database
  readonly clock: Clock
  readonly observer: Observer
  readonly log: Log
}

async function startRoles(
  { roles, historyDays }: Config,
  started: AsyncDisposableStack,
  parts: RoleParts,
): Promise<void> {
  const { database, transport, subscriptions, clock, observer, log } = parts
  if (roles.includes('relay') || roles.includes('worker')) {
    const housekeeping = startHousekeeping({ database, keepDays: historyDays, observer, clock })
    started.defer(() => housekeeping.stop())
  }
  if (roles.includes('relay')) {
    // Without hints: events go straight to their consumers, so the outbox holds only what was emitted before that was so.
    const relay = startRelay({ database, transport, observer, clock })
    started.defer(() => step(log, 'stopping the relay', () => relay.stop()))
  }
  if (roles.includes('worker')) {
    guardAgainstExit()
    const worker = await startWorker({ database, transport, subscriptions, observer, clock })
    started.defer(() => step(log, 'finishing events', () => worker.drain(workerGraceMs)))
  }
}

/** A server that could not listen has nothing to close but itself. */
async function open(server: FastifyInstance, config: Config): Promise<string> {
  try {
    const address = await listen(server, config)
    // Everywhere is no place to connect to.
    return address.replace('0.0.0.0', '127.0.0.1').replace('[::]', '[::1]')
  } catch (error) {
    await server.close()
    throw error
  }
}

async function step(log: Log, what: string, work: () => Promise<void>): Promise<void> {
  log.debug(what)
  await work()
}

function sumUp({ outbox, consumers }: EngineDepth): number {
  return consumers.reduce((sum, { ready, running, waiting }) => sum + ready + running + waiting, outbox.rows)
}
