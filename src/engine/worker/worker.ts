import type { Clock } from '../../kernel/clock.ts'
import { systemClock } from '../../kernel/clock.ts'
import { KerpError } from '../../kernel/errors.ts'
import type { Database } from '../database/database.ts'
import { isConnectionError } from '../database/connection.ts'
import { consumerIds, postgresInbox } from '../inbox/store.ts'
import type { Observer } from '../telemetry/observer.ts'
import { silentObserver } from '../telemetry/observer.ts'
import type {
  Consumer,
  ConsumeOptions,
  Delivery,
  HandleBatch,
  Settlement,
  Subscription,
  Transport,
} from '../transport.ts'
import { applyBatch } from './apply.ts'
import { deadLetterSink } from './dead-letters.ts'
import { handleWithInbox } from './handle.ts'
import { postgresResults } from './kept-results.ts'
import { commitHalf, performThenCommit } from './perform.ts'
import { defaultAttempts, defaultRetry, judge } from './retry.ts'
import type { EventSubscription, HandleSubscription, PerformSubscription } from './subscription.ts'

export interface WorkerOptions {
  database: Database
  transport: Transport
  subscriptions: readonly EventSubscription[]
  /** The Postgres transport, where another one is the broker: redriven dead letters wait in the database for their one consumer. */
  redriven?: Transport
  observer?: Observer
  clock?: Clock
}

export interface Worker {
  pause(): void
  resume(): void
  readonly inFlight: number
  /** Stops intake, finishes what runs within the grace time, gives the rest back. */
  drain(graceMs?: number): Promise<void>
}

const defaults = {
  batch: 1000,
  handleInFlight: 4000,
  performInFlight: 50,
  parallel: 2,
  lease: '30s',
  graceMs: 10_000,
} as const

/** Declares the subscriptions at the transport and starts working on them. */
export async function startWorker(options: WorkerOptions): Promise<Worker> {
  const { transport, subscriptions, observer = silentObserver } = options
  refuseTwins(subscriptions)
  const topology = { subscriptions: subscriptions.map(declare) }
  const { drift } = await transport.ensure(topology)
  for (const line of drift) observer.failed('topology', new KerpError('TOPOLOGY_DRIFT', line))
  const numbers = await consumerIds(
    options.database,
    subscriptions.map(({ name }) => name),
  )
  const consumers = subscriptions.flatMap((subscription) =>
    startConsumers(subscription, numbers.get(subscription.name)!, { ...options, observer }),
  )

  return {
    pause: () => consumers.forEach((consumer) => consumer.pause()),
    resume: () => consumers.forEach((consumer) => consumer.resume()),
    get inFlight() {
      return consumers.reduce((sum, consumer) => sum + consumer.inFlight, 0)
    },
    drain: async (graceMs = defaults.graceMs) =>
      void (await Promise.all(consumers.map((consumer) => consumer.drain(graceMs)))),
  }
}

export function declare({ name, type }: EventSubscription): Subscription {
  return { name, events: [type.name] }
}

function refuseTwins(subscriptions: readonly EventSubscription[]): void {
  const seen = new Set<string>()
  for (const { name } of subscriptions) {
    if (seen.has(name))
      throw new KerpError('SUBSCRIPTION_INVALID', `two consumers are named ${name}`, {
        hint: 'each needs a name of its own',
      })
    seen.add(name)
  }
}

type Parts = Required<Pick<WorkerOptions, 'database' | 'transport' | 'observer'>> &
  Pick<WorkerOptions, 'clock' | 'redriven'>

/** On the broker, and where that is not the database itself, on what was redriven. */
function startConsumers(subscription: EventSubscription, consumerId: number, parts: Parts): Consumer[] {
  const { redriven, transport } = parts
  const onBroker = startConsumer(subscription, consumerId, parts)
  if (!redriven || redriven.name === transport.name) return [onBroker]
  // The broker may still bring a copy of the same event, so these go through the inbox too.
  const { consumeInside: _, ...leasing } = redriven
  return [onBroker, startConsumer(subscription, consumerId, { ...parts, transport: leasing })]
}

function startConsumer(subscription: EventSubscription, consumerId: number, parts: Parts): Consumer {
  const { database, transport, observer } = parts
  const options: ConsumeOptions = {
    inFlight:
      subscription.inFlight ?? (subscription.kind === 'handle' ? defaults.handleInFlight : defaults.performInFlight),
    // Outside calls are not batched: each is acknowledged as soon as it is done.
    batch:
      subscription.kind === 'perform'
        ? 1
        : Math.min(transport.capabilities.maxBatch, subscription.batch ?? defaults.batch),
    lease: (subscription.kind === 'perform' && subscription.lease) || defaults.lease,
    parallel: (subscription.kind === 'handle' && subscription.parallel) || defaults.parallel,
    deadLetter: deadLetterSink(database),
    onError: (error) => observer.failed(subscription.name, error),
  }
  const verdict = judgeFor(subscription, observer)
  const done = doneFor(subscription.name, observer)
  if (subscription.kind === 'handle' && transport.consumeInside) {
    const apply = applyBatch(subscription, parts.clock ?? systemClock)
    return transport.consumeInside(
      declare(subscription),
      { apply, judge: verdict, done: (batch, startedAt) => done(batch, 0, startedAt) },
      options,
    )
  }
  const handle =
    subscription.kind === 'handle'
      ? handling(subscription, consumerId, parts, verdict)
      : performing(subscription, consumerId, parts, verdict)
  return transport.consume(declare(subscription), buryWhatKills(subscription, handle, verdict), options)
}

/** So often its worker may die before a message is given up, however few attempts it has: others may have been the cause. */
const fewestDeaths = 3

/**
 * A message whose worker died is handed out again with one attempt more, without anybody having judged it. So what kills its workers
 * runs out of attempts too.
 */
function buryWhatKills(
  { attempts = defaultAttempts }: EventSubscription,
  handle: HandleBatch,
  verdict: Verdict,
): HandleBatch {
  const limit = Math.max(attempts, fewestDeaths)
  return async (batch) => {
    const dead = batch.filter(({ attempt }) => attempt > limit)
    if (dead.length === 0) return handle(batch)
    const keys = new Set(dead.map(({ envelope }) => envelope.key))
    const calm = batch.filter(({ attempt, envelope: { key } }) => attempt <= limit && (key === null || !keys.has(key)))
    const settlements = new Map<Delivery, Settlement>()
    if (calm.length)
      for (const [index, settlement] of (await handle(calm)).entries()) settlements.set(calm[index]!, settlement)
    for (const delivery of dead) settlements.set(delivery, verdict(delivery, killedItsWorkers(delivery)))
    // What follows in the key waits until the letter is written.
    return batch.map((delivery) => settlements.get(delivery) ?? { do: 'retry', afterMs: 0, blame: 'consumer' })
  }
}

function killedItsWorkers({ attempt }: Delivery): KerpError {
  return new KerpError('HANDLER_CRASHED', `its worker died ${attempt - 1} times while it was being handled`)
}

type Verdict = (delivery: Delivery, error: Error) => Settlement

function handling(subscription: HandleSubscription, consumerId: number, parts: Parts, verdict: Verdict): HandleBatch {
  const { database, observer, clock = systemClock } = parts
  return handleWithInbox({
    database,
    inbox: postgresInbox(consumerId),
    now: () => clock.now(),
    apply: applyBatch(subscription, clock),
    judge: verdict,
    done: doneFor(subscription.name, observer),
  })
}

function performing(
  subscription: PerformSubscription,
  consumerId: number,
  parts: Parts,
  verdict: Verdict,
): HandleBatch {
  const { database, observer, clock = systemClock } = parts
  const results = postgresResults(database, consumerId)
  const answers = new Map<Delivery, unknown>()
  const commit = handleWithInbox({
    database,
    inbox: postgresInbox(consumerId),
    now: () => clock.now(),
    apply: commitHalf(subscription, { clock, results, answers }),
    judge: verdict,
    done: doneFor(subscription.name, observer),
  })
  return performThenCommit({ subscription, clock, results, commit, judge: verdict, answers })
}

/** The database being away is nobody's fault: it costs no attempt, and nothing is given up because of it. */
const databaseAway: Settlement = { do: 'retry', afterMs: 1000, blame: 'consumer' }

function judgeFor(
  { name, attempts = defaultAttempts, retry = defaultRetry }: EventSubscription,
  observer: Observer,
): Verdict {
  return (delivery, error) => {
    const settlement = isConnectionError(error)
      ? { ...databaseAway, error }
      : judge(error, delivery.attempt, attempts, retry)
    observer.attemptFailed(name, delivery, settlement)
    observer.handled(name, settlement.do === 'dead' ? 'dead' : 'retried', 1)
    return settlement
  }
}

function doneFor(
  name: string,
  observer: Observer,
): (fresh: readonly Delivery[], duplicates: number, startedAt: number) => void {
  return (fresh, duplicates, startedAt) => {
    const [oldest] = fresh
    if (duplicates) observer.handled(name, 'duplicate', duplicates)
    if (!oldest) return
    const now = Date.now()
    observer.handled(name, 'done', fresh.length)
    observer.batched(name, fresh.length, now - startedAt)
    observer.lagged(name, Math.max(0, now - Date.parse(oldest.envelope.timestamp)))
  }
}
