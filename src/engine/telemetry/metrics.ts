import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineDepth } from '../outbox/depth.ts'
import type { Observer } from './observer.ts'

export interface Metrics {
  readonly observer: Observer
  answered(answer: { method: string; route: string; status: number; tookMs: number }): void
  readonly contentType: string
  /** The page that Prometheus reads. */
  text(): Promise<string>
}

/** A scrape must not hang while the database is away. */
const depthTimeoutMs = 2_000

const lagBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
const sizeBuckets = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
const httpBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Counters count what this process does; the gauges of the backlog are read from the database at each scrape. */
export function createMetrics({ readDepth }: { readDepth: () => Promise<EngineDepth> }): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const gauges = backlogGauges(registry)
  const http = new Histogram({
    name: 'kerp_http_request_duration_seconds',
    help: 'Time from a request to its answer',
    labelNames: ['method', 'route', 'status'],
    buckets: httpBuckets,
    registers: [registry],
  })

  /** Scrapes at the same time share their numbers: half of one's gauges must not meet half of another's. */
  let running: Promise<string> | undefined
  async function scrape(): Promise<string> {
    gauges.show(await within(depthTimeoutMs, readDepth()))
    return registry.metrics()
  }

  return {
    observer: countingObserver(registry),
    answered: ({ method, route, status, tookMs }) => http.observe({ method, route, status }, tookMs / 1000),
    contentType: registry.contentType,
    text: () => (running ??= scrape().finally(() => (running = undefined))),
  }
}

function countingObserver(registry: Registry): Observer {
  const registers = [registry]
  const relayed = new Counter({ name: 'kerp_events_relayed_total', help: 'Events handed to the broker', registers })
  const relayFailed = new Counter({
    name: 'kerp_relay_failures_total',
    help: 'Events the broker did not take',
    registers,
  })
  const handled = new Counter({
    name: 'kerp_events_handled_total',
    help: 'Events by what became of them: done, duplicate, retried, dead',
    labelNames: ['consumer', 'outcome'],
    registers,
  })
  const size = new Histogram({
    name: 'kerp_batch_size',
    help: 'Events carried out together',
    labelNames: ['consumer'],
    buckets: sizeBuckets,
    registers,
  })
  const lag = new Histogram({
    name: 'kerp_lag_seconds',
    help: 'From the emit of the oldest event of a batch to the commit of its effect',
    labelNames: ['consumer'],
    buckets: lagBuckets,
    registers,
  })
  const failures = new Counter({
    name: 'kerp_failures_total',
    help: 'What went wrong and concerns no single event',
    labelNames: ['where'],
    registers,
  })
  return {
    relayed: (count) => relayed.inc(count),
    relayFailed: (count) => relayFailed.inc(count),
    handled: (consumer, outcome, count) => handled.inc({ consumer, outcome }, count),
    batched: (consumer, batchSize) => size.observe({ consumer }, batchSize),
    lagged: (consumer, lagMs) => lag.observe({ consumer }, lagMs / 1000),
    attemptFailed() {},
    failed: (where) => failures.inc({ where }),
  }
}

function backlogGauges(registry: Registry) {
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] })
  const up = gauge('kerp_database_up', '1 when the database answered this scrape')
  const outboxRows = gauge('kerp_outbox_rows', 'Events not yet handed to the broker')
  const oldestUnsent = gauge('kerp_oldest_unsent_seconds', 'Age of the oldest of them')
  const deliveries = gauge('kerp_deliveries', 'Events a consumer has yet to do', ['consumer', 'state'])
  const oldestDelivery = gauge('kerp_oldest_delivery_seconds', 'Age of the oldest of them', ['consumer'])
  const deadLetters = gauge('kerp_dead_letters', 'Events nobody could do, waiting for a decision')
  const oldestTransaction = gauge(
    'kerp_oldest_transaction_seconds',
    'Age of the oldest open transaction of the database',
  )
  const single = [outboxRows, oldestUnsent, deadLetters, oldestTransaction]

  return {
    show(depth: EngineDepth | undefined): void {
      // What is not known now is left out: an old number would look like a current one.
      deliveries.reset()
      oldestDelivery.reset()
      up.set(depth ? 1 : 0)
      if (!depth) return single.forEach((each) => each.remove())
      outboxRows.set(depth.outbox.rows)
      oldestUnsent.set(seconds(depth.outbox.oldestAgeMs))
      deadLetters.set(depth.deadLetters)
      oldestTransaction.set(seconds(depth.oldestTransactionMs))
      for (const { consumer, oldestAgeMs, ...counts } of depth.consumers) {
        for (const [state, count] of Object.entries(counts)) deliveries.set({ consumer, state }, count)
        oldestDelivery.set({ consumer }, seconds(oldestAgeMs))
      }
    },
  }
}

function seconds(ms: number | null): number {
  return (ms ?? 0) / 1000
}

/** The result, or undefined when it failed or took too long. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), ms)))
  try {
    return await Promise.race([work.catch(() => undefined), late])
  } finally {
    clearTimeout(timer)
  }
}
