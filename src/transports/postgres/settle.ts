import type { Database } from '../../engine/database/database.ts'
import { sql, storable } from '../../engine/database/sql.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import type { ConsumeOptions, DeadLetter, Depth, Settlement } from '../../engine/transport.ts'
import { messageOf, toError } from '../../kernel/errors.ts'
import type { Row } from './claim.ts'
import { laneCount } from './claim.ts'

/** Extends leases that are still ours; returns the ids of those. */
export async function extend(
  database: Database,
  consumer: number,
  rows: readonly Row[],
  leaseMs: number,
): Promise<Set<number>> {
  const kept = await database.transaction((tx) => {
    // A lease need not survive a crash of the server, and must not wait for a slow disk.
    void tx.query('set local synchronous_commit = off')
    return tx.sql<{ id: bigint }>`
    update kerp.deliveries d set due_at = now() + make_interval(secs => ${leaseMs / 1000}::float8)
    from ${ours(rows)} where ${isOurs(consumer)} returning d.id`
  })
  return new Set(kept.map(({ id }) => Number(id)))
}

/** Removes what is done, and says how many of it there were. A lease that was lost removes nothing. */
export async function remove(tx: Tx | Database, consumer: number, rows: readonly Row[]): Promise<number> {
  const removed =
    await tx.sql`delete from kerp.deliveries d using ${ours(rows)} where ${isOurs(consumer)} returning d.id`
  return removed.length
}

/** Moves a row to the dead letters. When those cannot be written it stays and is tried again; when it is no longer ours, nothing happens. */
export async function bury(
  database: Database,
  consumer: number,
  row: Row,
  letter: DeadLetter,
  { deadLetter, onError }: Pick<ConsumeOptions, 'deadLetter' | 'onError'>,
): Promise<void> {
  try {
    await database.transaction(async (tx) => {
      if (await remove(tx, consumer, [row])) await deadLetter(letter, tx)
    })
  } catch (failure) {
    onError?.(toError(failure))
    await postpone(database, consumer, [{ row, ...unburied(failure) }])
  }
}

/** How a message waits whose dead letter could not be written. */
export function unburied(failure: unknown) {
  return { afterMs: 2000, countsAttempt: false, error: `its dead letter could not be written: ${messageOf(failure)}` }
}

/** Not its fault and at once: it was only held back behind an earlier event of its key, so nothing is written about it. */
export function isHeldBack(settlement: Settlement | undefined): boolean {
  return settlement?.do === 'retry' && settlement.blame === 'consumer' && settlement.afterMs === 0
}

/** Gives back what was handed out and not started, as if it had never been: no claim, no attempt. */
export async function giveBack(database: Database, consumer: number, rows: readonly Row[]): Promise<void> {
  await database.sql`
    update kerp.deliveries d set claims = d.claims - 1, due_at = null, leased = false
    from ${ours(rows)} where ${isOurs(consumer)}`
}

export interface Postponed {
  readonly row: Row
  readonly afterMs: number
  readonly countsAttempt: boolean
  readonly error: string | null
}

/** Puts rows off; written after the rollback of what failed, so that the count of attempts survives it. */
export async function postpone(tx: Tx | Database, consumer: number, all: readonly Postponed[]): Promise<void> {
  await tx.sql`
    update kerp.deliveries d
    set due_at = now() + make_interval(secs => w.after_ms / 1000), claims = d.claims + 1, leased = false,
        attempt = d.attempt + w.counts::int, last_error = coalesce(w.error, d.last_error)
    from unnest(${all.map(({ row }) => row.id)}::bigint[], ${all.map(({ row }) => row.lane)}::smallint[], ${all.map(({ row }) => row.claims)}::int[],
      ${all.map(({ afterMs }) => afterMs)}::float8[], ${all.map(({ countsAttempt }) => countsAttempt)}::boolean[], ${all.map(({ error }) => (error === null ? null : storable(error)))}::text[])
      as w (id, lane, claims, after_ms, counts, error)
    where ${isOurs(consumer)}`
}

// Both partial indexes begin with consumer and lane; without one of their conditions neither could be used.
function isOurs(consumer: number) {
  return sql`
    d.ctid = any (array(
      select r.ctid from kerp.deliveries r where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and r.due_at is null and r.claims = w.claims
      union all
      select r.ctid from kerp.deliveries r where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and r.due_at is not null and r.claims = w.claims))`
}

function ours(rows: readonly Row[]) {
  return sql`unnest(${rows.map((row) => row.id)}::bigint[], ${rows.map((row) => row.lane)}::smallint[], ${rows.map((row) => row.claims)}::int[]) as w (id, lane, claims)`
}

/** When the next row that waits is due, in milliseconds from now. */
export async function nextDueMs(database: Database, consumer: number): Promise<number | null> {
  const [row] = await database.sql<{ ms: number | null }>`
    select extract(epoch from min(first.due_at) - now())::float8 * 1000 as ms
    from generate_series(0, ${laneCount}::int) lane
    cross join lateral (
      select due_at from kerp.deliveries where consumer_id = ${consumer}::int and lane = lane.lane and due_at is not null order by due_at limit 1
    ) first`
  return row?.ms ?? null
}

export async function depthOf(database: Database, consumer: number): Promise<Depth> {
  const [row] = await database.sql<{ ready: number; in_flight: number; delayed: number; age: number | null }>`
    select count(*) filter (where due_at is null or due_at <= now())::int as ready,
           count(*) filter (where due_at > now() and leased)::int as in_flight,
           count(*) filter (where due_at > now() and not leased)::int as delayed,
           extract(epoch from now() - min(kerp.time_of(event_id)))::float8 * 1000 as age
    from kerp.deliveries where consumer_id = ${consumer}`
  return { ready: row!.ready, inFlight: row!.in_flight, delayed: row!.delayed, oldestAgeMs: row!.age }
}
