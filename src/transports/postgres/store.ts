import type { Database } from '../../engine/database/database.ts'
import { sql } from '../../engine/database/sql.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import type { Depth } from '../../engine/transport.ts'

/** A key's events share a lane, and one transaction at a time takes from a lane: that is how their order is kept. */
export const laneCount = 16

export interface Row {
  readonly id: number
  readonly lane: number
  readonly failures: number
  readonly claims: number
  /** It waited for its time: for a retry, a delay or the end of a lease. */
  readonly waited: boolean
  readonly key: string | null
  readonly envelope: string
}

export interface TakeOptions {
  readonly consumer: number
  readonly limit: number
  /** Lanes to lock at most: a few when each has plenty, so that others can work beside us; all when there is little. */
  readonly lanes: number
  /** Where to begin to look, so that everyone begins elsewhere. */
  readonly offset: number
  /** By lane: nothing ready has an id up to this one. Saves walking over the entries of what was deleted. */
  readonly low: readonly number[]
}

/**
 * Locks lanes that have work for the rest of the transaction. A statement of its own: the next one must see what whoever held
 * the lane before has committed, and Postgres takes a statement's view of the data before it waits for locks.
 */
function lockLanes({ consumer, offset, lanes }: TakeOptions) {
  return sql`
    select set_config('kerp.lanes', coalesce((
      select string_agg(lane::text, ',') from (
        select lane from (select ((g + ${offset}::int) % ${laneCount}::int)::smallint as lane from generate_series(0, ${laneCount}::int - 1) g) choice
        where case
          when exists (select from kerp.deliveries d where d.consumer_id = ${consumer}::int and d.lane = choice.lane and d.due_at is null)
            or exists (select from kerp.deliveries d where d.consumer_id = ${consumer}::int and d.lane = choice.lane and d.due_at <= now())
          then pg_try_advisory_xact_lock(${consumer}::int, lane) else false end
        limit ${lanes}::int
      ) locked), ''), true)`
}

// Lane by lane with an order and a limit inside, so that the planner has no choice but to walk the right index: statistics of
// a queue are always stale, and once the plan was a sort of the whole table it was 15 times slower. Ready rows go without FOR
// UPDATE: the lane's lock stands for it, and each row lock would be a write of its own (140,000/s against 200,000/s).
function candidates({ consumer, limit, low }: TakeOptions) {
  return sql`
    select x.ctid from unnest(string_to_array(nullif(current_setting('kerp.lanes'), ''), ',')::smallint[]) as l (lane)
    cross join lateral (
      (select q.ctid from kerp.deliveries q
       where q.consumer_id = ${consumer}::int and q.lane = l.lane and q.due_at <= now()
         and (q.key is null or not exists (${blocking(consumer)}))
       order by q.due_at, q.id limit ${limit}::int)
      union all
      (select q.ctid from kerp.deliveries q
       where q.consumer_id = ${consumer}::int and q.lane = l.lane and q.due_at is null and q.id > (${low}::bigint[])[l.lane + 1]
         and (q.key is null or not exists (${blocking(consumer)}))
       order by q.id limit ${limit}::int)
    ) x limit ${limit}::int`
}

/** An earlier event of the same key that was tried and waits. */
function blocking(consumer: number) {
  return sql`
    select from kerp.deliveries b
    where b.consumer_id = ${consumer}::int and b.key = q.key and b.id < q.id
      and b.key is not null and b.claims > 0 and b.due_at is not null and b.due_at > now()`
}

const columns = sql`d.id, d.lane, d.attempt, d.claims, d.due_at is not null, d.key, d.envelope`

/** Takes rows away in the transaction of their effect: its commit is the acknowledgement, its rollback the redelivery. */
export async function take(tx: Tx, options: TakeOptions): Promise<Row[]> {
  const locked = tx.run(lockLanes(options))
  const taken = tx.raw(sql`delete from kerp.deliveries d where d.ctid = any (array(${candidates(options)})) returning ${columns}`)
  await locked
  return toRows(await taken)
}

/** Takes these rows again, those that are still there and whose lanes nobody else holds. */
export async function takeAgain(tx: Tx, consumer: number, rows: readonly Row[]): Promise<Row[]> {
  const locked = tx.sql`
    select set_config('kerp.lanes', coalesce((
      select string_agg(lane::text, ',') from unnest(${[...new Set(rows.map((row) => row.lane))]}::smallint[]) as choice (lane)
      where pg_try_advisory_xact_lock(${consumer}::int, lane)), ''), true)`
  const taken = tx.raw(sql`
    delete from kerp.deliveries d where d.ctid = any (array(
      select q.ctid
      from unnest(${rows.map((row) => row.id)}::bigint[], ${rows.map((row) => row.lane)}::smallint[], ${rows.map((row) => row.claims)}::int[]) as w (id, lane, claims)
      cross join lateral (
        select r.ctid from kerp.deliveries r
        where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and r.due_at is null and r.claims = w.claims
        union all
        select r.ctid from kerp.deliveries r
        where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and r.due_at <= now() and r.claims = w.claims
      ) q
      where w.lane = any (string_to_array(nullif(current_setting('kerp.lanes'), ''), ',')::smallint[])
    )) returning ${columns}`)
  await locked
  return toRows(await taken)
}

/** Hands rows out until `leaseMs` from now, unless somebody extends that. */
export async function lease(tx: Tx, options: TakeOptions, leaseMs: number): Promise<Row[]> {
  const locked = tx.run(lockLanes(options))
  const leased = tx.raw(sql`
    update kerp.deliveries d
    set claims = claims + 1, due_at = now() + make_interval(secs => ${leaseMs / 1000}::float8), leased = true,
        -- A lease that ran out ended with a dead worker; if it is the message that kills them, its attempts must run out too.
        attempt = attempt + leased::int
    where d.ctid = any (array(${candidates(options)})) returning ${columns}`)
  await locked
  return toRows(await leased)
}

/** Extends leases that are still ours; returns the ids of those. */
export async function extend(database: Database, consumer: number, rows: readonly Row[], leaseMs: number): Promise<Set<number>> {
  const kept = await database.sql<{ id: bigint }>`
    update kerp.deliveries d set due_at = now() + make_interval(secs => ${leaseMs / 1000}::float8)
    from ${ours(rows)} where ${isOurs(consumer)} returning d.id`
  return new Set(kept.map(({ id }) => Number(id)))
}

/** Removes what is done. A lease that was lost removes nothing. */
export async function remove(tx: Tx | Database, consumer: number, rows: readonly Row[]): Promise<void> {
  await tx.sql`delete from kerp.deliveries d using ${ours(rows)} where ${isOurs(consumer)}`
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
      ${all.map(({ afterMs }) => afterMs)}::float8[], ${all.map(({ countsAttempt }) => countsAttempt)}::boolean[], ${all.map(({ error }) => error)}::text[])
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
    from generate_series(0, ${laneCount}::int - 1) lane
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

function toRows(raw: (string | null)[][]): Row[] {
  const rows = raw.map(([id, lane, failures, claims, waited, key, envelope]) => ({
    id: Number(id), lane: Number(lane), failures: Number(failures), claims: Number(claims), waited: waited === 't', key: key!, envelope: envelope!,
  }))
  // DELETE returns them in the order of the heap.
  return rows.sort((a, b) => a.id - b.id)
}
