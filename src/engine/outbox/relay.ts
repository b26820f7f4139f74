import type { Clock } from '../../kernel/clock.ts'
import { sleep, systemClock } from '../../kernel/clock.ts'
import { isKerpError, toError } from '../../kernel/errors.ts'
import type { Database } from '../database/database.ts'
import type { Observer } from '../telemetry/observer.ts'
import { silentObserver } from '../telemetry/observer.ts'
import type { PublishResult, Transport } from '../transport.ts'
import type { Hints } from './hints.ts'
import type { Leadership } from './leadership.ts'
import { postgresLeadership } from './leadership.ts'
import type { OutboxRow, OutboxStore } from './store.ts'
import { postgresOutbox } from './store.ts'

export interface RelayOptions {
  database: Database
  transport: Transport
  /** Left out where events go straight to their consumers: then the outbox is the exception, and a poll is enough. */
  hints?: Pick<Hints, 'listen'>
  observer?: Observer
  clock?: Clock
}

export interface Relay {
  /** Finishes what is being published, then lets others lead. */
  stop(): Promise<void>
}

export function startRelay({
  database,
  observer = silentObserver,
  clock = systemClock,
  ...options
}: RelayOptions): Relay {
  return runRelay({
    ...options,
    observer,
    clock,
    outbox: postgresOutbox(database),
    leadership: postgresLeadership(database, clock, (error) => observer.failed('relay', error)),
  })
}

export interface RelayParts extends Omit<RelayOptions, 'database'> {
  observer: Observer
  clock: Clock
  outbox: OutboxStore
  leadership: Leadership
}

/** How many rows are read at once. */
const readLimit = 1000
/** Without a hint, the outbox is looked at this often. */
const pollMs = 500
/** Ids are handed out before the commit, so a slow transaction's rows appear below those already read: all is read again this often. */
const sweepMs = 1000
const firstRetryMs = 100
const lastRetryMs = 30_000

/** Publishes what was committed to the outbox, each shard by one leader fleet-wide, and deletes what the broker has confirmed. */
export function runRelay({ outbox, leadership, transport, hints, observer, clock }: RelayParts): Relay {
  const loops = new Map<number, { done: Promise<void>; wake: () => void }>()
  const stopping = new AbortController()
  const unlisten = hints?.listen('*', () => void poll())
  let polling = false

  leadership.follow((shard, signal) => {
    const lost = AbortSignal.any([signal, stopping.signal])
    const previous = loops.get(shard)?.done
    let wake = () => {}
    const loop = { wake: () => wake(), done: Promise.resolve() }
    loop.done = (async () => {
      await previous
      await relayShard(shard, lost, (wakeUp) => (wake = wakeUp))
    })()
    loops.set(shard, loop)
  })

  void (async () => {
    while (!stopping.signal.aborted) {
      await poll()
      await sleep(clock, pollMs, stopping.signal)
    }
  })()

  /** One query for all shards; those with rows are woken. */
  async function poll(): Promise<void> {
    if (polling || loops.size === 0) return
    polling = true
    try {
      for (const shard of await outbox.pending()) loops.get(shard)?.wake()
    } catch (error) {
      observer.failed('relay', toError(error))
    } finally {
      polling = false
    }
  }

  async function relayShard(shard: number, lost: AbortSignal, onWake: (wake: () => void) => void): Promise<void> {
    const run = shardRun(shard)
    while (!lost.aborted) {
      const { promise: woken, resolve } = Promise.withResolvers<void>()
      onWake(resolve)
      let waitMs: number | undefined
      try {
        waitMs = await run.round(lost)
      } catch (error) {
        observer.failed('relay', toError(error))
        run.startOver()
        waitMs = pollMs
        await sleep(clock, waitMs, lost)
        continue
      }
      if (waitMs === 0) continue
      const rest = new AbortController()
      await Promise.race([woken, sleep(clock, waitMs ?? sweepMs, AbortSignal.any([lost, rest.signal]))])
      rest.abort()
    }
    await run.settled()
  }

  function shardRun(shard: number) {
    /** Everything up to this id has been read; only an optimisation, which spares walking over deleted rows. */
    let low = 0
    let sweptAt = clock.monotonic()
    /** One moment for a whole round: what was held back at its beginning stays so, or a later event of its key could go ahead. */
    let roundAt = sweptAt
    let confirming: Promise<void> = Promise.resolve()
    /** Published, and on the way out of the table. */
    let beingConfirmed: ReadonlySet<number> = new Set()
    /** Keys (or, without a key, rows) whose event could not be published: their later ones wait for it. */
    const blocked = new Map<string, { until: number; tries: number }>()

    /** Returns how long to wait before the next: 0 = there is likely more. */
    async function round(lost: AbortSignal): Promise<number | undefined> {
      const now = clock.monotonic()
      roundAt = now
      const nextTry = Math.min(...[...blocked.values()].map(({ until }) => until))
      const sweeps = now - sweptAt >= sweepMs || nextTry <= now
      if (sweeps) {
        // Rows that are being deleted must not be read once more.
        await confirming
        low = 0
        sweptAt = now
      }
      const startedAt = clock.now()
      const read = await outbox.read(shard, low, readLimit)
      const rows = read.filter(({ id }) => !beingConfirmed.has(id))
      if (read.length === 0) {
        // Nothing is left, so nothing is held back either: whatever was has gone another way.
        if (sweeps) blocked.clear()
        return Math.min(sweepMs, Math.max(1, nextTry - now))
      }
      low = Math.max(low, read.at(-1)!.id)
      await publishInWaves(rows, startedAt, lost)
      return read.length >= readLimit ? 0 : Math.min(sweepMs, Math.max(1, nextTry - now))
    }

    /** One event of a key at a time, so that when one fails its later ones have not gone ahead. */
    async function publishInWaves(rows: readonly OutboxRow[], startedAt: number, lost: AbortSignal): Promise<void> {
      let rest = rows.filter((row) => !isBlocked(row))
      while (rest.length && !lost.aborted) {
        const wave: OutboxRow[] = []
        const later: OutboxRow[] = []
        const keys = new Set<string>()
        for (const row of rest) {
          const { key } = row.envelope
          const isFirst = key === null || transport.capabilities.publishesAtomically || !keys.has(key)
          if (isFirst && wave.length < transport.capabilities.maxBatch) wave.push(row)
          else later.push(row)
          if (key !== null) keys.add(key)
        }
        const results = await transport.publish(
          wave.map(({ envelope }) => envelope),
          lost,
        )
        await settle(wave, results, startedAt)
        rest = later.filter((row) => !isBlocked(row))
      }
      if (rest.length) low = 0
    }

    async function settle(
      wave: readonly OutboxRow[],
      results: readonly PublishResult[],
      startedAt: number,
    ): Promise<void> {
      const accepted: OutboxRow[] = []
      for (const [index, row] of wave.entries()) {
        const result = results[index]!
        // Nobody subscribed: it stays in the history, and that is all there is to do.
        if (result.ok || isKerpError(result.error, 'EVENT_UNROUTABLE')) accepted.push(row)
        else if (result.retryable) block(row, result.error)
        else await bury(row, result.error)
      }
      for (const { envelope } of accepted) blocked.delete(envelope.key ?? envelope.eventId)
      if (accepted.length === 0) return
      const oldest = Date.parse(accepted[0]!.envelope.timestamp)
      observer.relayed(accepted.length, Math.max(0, clock.now() - oldest))
      await confirming
      // Beside the next read and publish; after a failure the rows are still there and the next sweep finds them.
      beingConfirmed = new Set(accepted.map(({ id }) => id))
      confirming = outbox.confirm(shard, accepted, startedAt).catch((error) => {
        // They may still be there, and the next sweep takes them again. After a success this must stay: a read that began before the
        // deletion has seen them.
        beingConfirmed = new Set()
        observer.failed('relay', toError(error))
      })
    }

    async function bury(row: OutboxRow, error: Error): Promise<void> {
      observer.relayFailed(1, error)
      blocked.delete(row.envelope.key ?? row.envelope.eventId)
      await outbox.bury(shard, row, {
        consumer: 'relay',
        envelope: row.envelope,
        reason: 'unpublishable',
        error,
        attempts: 1,
      })
    }

    function block({ envelope }: OutboxRow, error: Error): void {
      observer.relayFailed(1, error)
      const name = envelope.key ?? envelope.eventId
      const tries = (blocked.get(name)?.tries ?? 0) + 1
      const waitMs = Math.min(lastRetryMs, firstRetryMs * 2 ** (tries - 1))
      blocked.set(name, { until: clock.monotonic() + waitMs, tries })
    }

    function isBlocked({ envelope }: OutboxRow): boolean {
      const entry = blocked.get(envelope.key ?? envelope.eventId)
      return entry !== undefined && entry.until > roundAt
    }

    return {
      round,
      startOver() {
        low = 0
      },
      settled: () => confirming,
    }
  }

  return {
    async stop() {
      unlisten?.()
      stopping.abort()
      await Promise.all([...loops.values()].map(({ done }) => done))
      await leadership.release()
    },
  }
}
