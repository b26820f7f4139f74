import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import { milliseconds } from '../../kernel/duration.ts'
import type { Database } from '../../engine/database/database.ts'
import type { Consumer, ConsumeOptions, Delivery, HandleBatch, Settlement } from '../../engine/transport.ts'
import { laneControl } from './lane-control.ts'
import { startSlots } from './slots.ts'
import type { Row } from './store.ts'
import { extend, giveBack, lease, nextDueMs, postpone, remove } from './store.ts'

export interface LeasedOptions {
  database: Database
  consumerId: number
  consumer: string
  handle: HandleBatch
  options: ConsumeOptions
  listen: (wake: () => void) => () => void
}

interface Held {
  row: Row
  readonly delivery: Delivery
  readonly aborter: AbortController
}

/** A dead letter that cannot be written now is tried again after this. */
const deadLetterRetryMs = 5000

/**
 * For handlers that call the outside, which must not hold a transaction: rows are handed out with a lease, which is extended until
 * they are settled. Every hand-out counts `claims` up, so what a worker says after it lost its lease finds no row.
 */
export function consumeLeased({ database, consumerId, consumer, handle, options, listen }: LeasedOptions): Consumer {
  const leaseMs = milliseconds(options.lease)
  const control = laneControl(consumerId, options.batch, process.pid)
  const onError = options.onError ?? (() => {})
  const held = new Set<Held>()
  const working = new Set<Promise<void>>()
  let freed = () => {}
  let draining = false

  const slots = startSlots({ slots: 1, turn, nextDueMs: () => nextDueMs(database, consumerId), onError })
  const unlisten = listen(slots.wake)
  const heartbeat = setInterval(() => void extendAll().catch(onError), Math.max(50, leaseMs / 3))

  async function turn(): Promise<{ took: number; full: boolean }> {
    const room = options.inFlight - held.size
    if (room <= 0) {
      await new Promise<void>((resolve) => (freed = resolve))
      return { took: 1, full: false }
    }
    const limit = Math.min(room, options.batch)
    const rows = await database.transaction((tx) => lease(tx, { ...control.next(), limit }, leaseMs), { retries: 0 })
    control.took(rows)
    if (rows.length === 0) return { took: 0, full: false }
    const batch = rows.map(toHeld)
    for (const each of batch) held.add(each)
    if (draining) await handBack(batch)
    else track(work(batch))
    return { took: rows.length, full: rows.length === limit }
  }

  function track(work: Promise<void>): void {
    working.add(work)
    void work.finally(() => working.delete(work))
  }

  async function work(batch: readonly Held[]): Promise<void> {
    let settlements: Settlement[]
    try {
      settlements = await handle(batch.map(({ delivery }) => delivery))
    } catch (thrown) {
      const error = toError(thrown)
      settlements = batch.map(() => ({ do: 'retry', afterMs: 1000, blame: 'message', error }))
    }
    try {
      await settleAll(batch, settlements)
    } catch (error) {
      // Not settled, so still leased: without a heartbeat they come back by themselves.
      onError(toError(error))
    } finally {
      for (const each of batch) held.delete(each)
      freed()
    }
  }

  async function settleAll(batch: readonly Held[], settlements: readonly Settlement[]): Promise<void> {
    const done = batch.filter((_, index) => settlements[index]?.do === 'ack')
    if (done.length) await remove(database, consumerId, done.map(({ row }) => row))
    for (const [index, each] of batch.entries()) {
      const settlement = settlements[index]
      if (settlement?.do === 'dead') await bury(each, settlement)
    }
    const returned = batch.filter((_, index) => isReturn(settlements[index]))
    if (returned.length) await giveBack(database, consumerId, returned.map(({ row }) => row))
    const postponed = batch.flatMap(({ row }, index) => {
      const settlement = settlements[index]
      if (settlement?.do !== 'retry' || isReturn(settlement)) return []
      const { afterMs, blame, error } = settlement
      return [{ row, afterMs, countsAttempt: blame === 'message', error: error?.message ?? null }]
    })
    if (postponed.length) await postpone(database, consumerId, postponed)
    if (returned.length || postponed.length) control.forget()
  }

  async function bury({ row, delivery }: Held, { reason, error }: Settlement & { do: 'dead' }): Promise<void> {
    const letter = { consumer, envelope: delivery.envelope, reason, attempts: delivery.attempt, ...(error && { error }) }
    try {
      await database.transaction(async (tx) => {
        await remove(tx, consumerId, [row])
        await options.deadLetter(letter, tx)
      })
    } catch (failure) {
      onError(toError(failure))
      const words = `its dead letter could not be written: ${String(failure)}`
      await postpone(database, consumerId, [{ row, afterMs: deadLetterRetryMs, countsAttempt: false, error: words }])
    }
  }

  async function extendAll(): Promise<void> {
    const mine = [...held]
    if (mine.length === 0) return
    const kept = await extend(database, consumerId, mine.map(({ row }) => row), leaseMs)
    for (const { row, aborter, delivery } of mine) {
      if (kept.has(row.id)) continue
      aborter.abort(new KerpError('LEASE_LOST', `${delivery.envelope.eventType} ${delivery.envelope.eventId} may be with another worker now`))
    }
  }

  async function handBack(batch: readonly Held[]): Promise<void> {
    await giveBack(database, consumerId, batch.map(({ row }) => row))
    for (const each of batch) held.delete(each)
  }

  return {
    pause: slots.pause,
    resume: slots.resume,
    get inFlight() {
      return held.size
    },
    async drain(graceMs) {
      draining = true
      unlisten()
      const timer = setTimeout(() => held.forEach(({ aborter }) => aborter.abort(new KerpError('DEADLINE_EXCEEDED', 'the worker is stopping'))), graceMs)
      freed()
      await slots.stop()
      await Promise.all(working)
      clearTimeout(timer)
      clearInterval(heartbeat)
    },
  }
}

function toHeld(row: Row): Held {
  const aborter = new AbortController()
  const envelope = JSON.parse(row.envelope) as Envelope
  return { row, aborter, delivery: { envelope, attempt: row.failures + 1, signal: aborter.signal } }
}

/** Not its fault and at once: it was only held back, so nothing is written about it. */
function isReturn(settlement: Settlement | undefined): boolean {
  return settlement?.do === 'retry' && settlement.blame === 'consumer' && settlement.afterMs === 0
}
