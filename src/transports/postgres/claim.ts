import type { Database } from '../../engine/database/database.ts'
import { literal, sql, storable } from '../../engine/database/sql.ts'
import type { Statement } from '../../engine/database/sql.ts'
import type { Tx } from '../../engine/database/transaction.ts'

/** A key's events share a lane, and one transaction at a time takes from a lane: that is how their order is kept. */
export const laneCount = 16
/** Events without a key: anyone takes any of them. */
const unordered = laneCount

export interface Row {
  readonly id: number
  readonly lane: number
  readonly failures: number
  readonly claims: number
  /** It waited for its time: for a retry, a delay or the end of a lease. */
  readonly waited: boolean
  /** It was handed out before to a process that never said what became of it. */
  readonly leftBehind: boolean
  readonly key: string | null
  readonly envelope: string
}

export interface TakeOptions {
  readonly consumer: number
  /** No call of this consumer takes more: known to the planner, which would sort the table if it had to guess. */
  readonly most: number
  readonly limit: number
  /** Of these at most so many with a key, so that the others have their share when both are plenty. */
  readonly keyedLimit: number
  readonly unorderedFirst: boolean
  /** Lanes to lock at most: a few when each has plenty, so that others can work beside us; all when there is little. */
  readonly lanes: number
  /** Where to begin to look, so that everyone begins elsewhere. */
  readonly offset: number
  /**
   * Nothing ready without a key has an id up to this one, bar what commits late: saves walking over the entries of what was deleted.
   * Lanes are always read from their beginning: a late event must still go before a later one of its key.
   */
  readonly low: number
}

/**
 * Of rows left behind by a process that died, which may have died of one of them: none of them; nothing but those for which that was
 * the first time; nothing but the others; or everything but those others, of which only the one with this id.
 */
export type LeftBehind = 'none' | 'once' | 'again' | number

/**
 * Takes rows away in the transaction of their effect: its commit is the acknowledgement, its rollback the redelivery. Where the last
 * ones had no key, it looks there first: that needs no lanes, and is 0.2 ms faster.
 */
export async function take(tx: Tx, options: TakeOptions): Promise<Row[]> {
  if (options.unorderedFirst) {
    const rows = await takeUnordered(tx, options)
    if (rows.length) return rows
  }
  const locked = tx.run(lockLanes(options))
  const taken = tx.raw(sql`
    ${keyedRows(options, 'none')}
    delete from kerp.deliveries d where d.ctid = any ((select ctids from keyed) || ${unorderedRows(options, 'none')})
    returning ${columns}, d.leased`)
  await locked
  return toRows(await taken)
}

async function takeUnordered(tx: Tx, options: TakeOptions): Promise<Row[]> {
  const taken = tx.raw(sql`
    with keyed as (select '{}'::tid[] as ctids)
    delete from kerp.deliveries d where d.ctid = any (${unorderedRows(options, 'none')}) returning ${columns}, d.leased`)
  return toRows(await taken)
}

/** Hands rows out until `leaseMs` from now, unless somebody extends that. */
export async function lease(tx: Tx, options: TakeOptions, leaseMs: number, left: LeftBehind): Promise<Row[]> {
  const locked = tx.run(lockLanes(options))
  const leased = tx.raw(sql`
    ${keyedRows(options, left)}
    update kerp.deliveries d
    set claims = d.claims + 1, due_at = now() + make_interval(secs => ${leaseMs / 1000}::float8), leased = true,
        -- A lease that ran out ended with a dead worker; if it is the message that kills them, its attempts must run out too.
        attempt = d.attempt + d.leased::int
    from (select q.ctid as place, q.leased as was_leased from kerp.deliveries q
          where q.ctid = any ((select ctids from keyed) || ${unorderedRows(options, left)})) before
    where d.ctid = before.place returning ${columns}, before.was_leased`)
  await locked
  return toRows(await leased)
}

/** Takes these rows again, those that are still as they were and in nobody else's hands; also before their lease has run out, if it is ours. */
export async function takeAgain(
  tx: Tx,
  consumer: number,
  rows: readonly Row[],
  whose: 'anyone' | 'ours' = 'anyone',
): Promise<Row[]> {
  const lanes = [...new Set(rows.map(({ lane }) => lane).filter((lane) => lane !== unordered))]
  const isDue = whose === 'ours' ? sql`r.due_at is not null` : sql`r.due_at <= now()`
  const locked = tx.sql`
    select set_config('kerp.lanes', coalesce((
      select string_agg(lane::text, ',') from unnest(${lanes}::smallint[]) as choice (lane)
      where pg_try_advisory_xact_lock(${consumer}::int, lane)), ''), true)`
  const taken = tx.raw(sql`
    delete from kerp.deliveries d where d.ctid = any (array(
      select q.ctid
      from unnest(${rows.map(({ id }) => id)}::bigint[], ${rows.map(({ lane }) => lane)}::smallint[], ${rows.map(({ claims }) => claims)}::int[]) as w (id, lane, claims)
      cross join lateral (
        select * from (select r.ctid from kerp.deliveries r
         where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and r.due_at is null and r.claims = w.claims
         for update skip locked) r
        union all
        select * from (select r.ctid from kerp.deliveries r
         where r.consumer_id = ${consumer}::int and r.lane = w.lane and r.id = w.id and ${isDue} and r.claims = w.claims
         for update skip locked) r
      ) q
      where w.lane = ${unordered}::smallint or w.lane = any (${lockedLanes})
    )) returning ${columns}, d.leased`)
  await locked
  return toRows(await taken)
}

/** The one to try next of those that processes have died over more than once; each is tried alone, the least suspect first. */
export async function nextSuspect(database: Database, consumer: number): Promise<number | undefined> {
  const [row] = await database.sql<{ id: bigint }>`
    select id from kerp.deliveries where consumer_id = ${consumer} and leased and due_at <= now() and attempt > 0 order by attempt, id limit 1`
  return row && Number(row.id)
}

/** Puts rows back that were taken in this transaction, under their old ids, so that they keep their place. */
export async function putBack(tx: Tx, consumer: number, all: readonly PutBack[]): Promise<void> {
  await tx.sql`
    insert into kerp.deliveries (id, consumer_id, lane, attempt, claims, due_at, event_id, key, last_error, envelope)
    overriding system value
    select r.id, ${consumer}::int, r.lane, r.attempt, r.claims, now() + make_interval(secs => r.after_ms / 1000), r.event_id, r.key, r.error, r.envelope
    from json_to_recordset(${JSON.stringify(all.map(toPutBackRow))}::json)
      as r (id bigint, lane smallint, attempt smallint, claims int, after_ms float8, event_id uuid, key text, error text, envelope text)`
}

export interface PutBack {
  readonly row: Row
  readonly eventId: string
  /** Null: ready as it was. */
  readonly afterMs: number | null
  readonly countsAttempt: boolean
  readonly error: string | null
}

function toPutBackRow({ row, eventId, afterMs, countsAttempt, error }: PutBack) {
  return {
    id: row.id,
    lane: row.lane,
    attempt: row.failures + (countsAttempt ? 1 : 0),
    claims: row.claims + (afterMs === null ? 0 : 1),
    after_ms: afterMs,
    event_id: eventId,
    key: row.key,
    error: error === null ? null : storable(error),
    envelope: row.envelope,
  }
}

/**
 * Locks lanes that have work for the rest of the transaction. A statement of its own: the next one must see what whoever held
 * the lane before has committed, and Postgres takes a statement's view of the data before it waits for locks.
 */
function lockLanes({ consumer, offset, lanes }: TakeOptions): Statement {
  const order = Array.from({ length: laneCount }, (_, index) => (index + offset) % laneCount)
  // Not EXISTS: the planner may answer that from a list of all lanes that it makes by reading the whole queue (56 ms).
  return sql`
    select set_config('kerp.lanes', coalesce((
      select string_agg(lane::text, ',') from (
        select lane from unnest(${order}::smallint[]) as choice (lane)
        where case
          when (select true from kerp.deliveries d
                where d.consumer_id = ${consumer}::int and d.lane = choice.lane and d.due_at is null order by d.id limit 1)
            or ((select true from kerp.deliveries d where d.consumer_id = ${consumer}::int and d.due_at is not null limit 1)
              and (select true from kerp.deliveries d
                where d.consumer_id = ${consumer}::int and d.lane = choice.lane and d.due_at <= now() order by d.due_at limit 1))
          then pg_try_advisory_xact_lock(${consumer}::int, lane) else false end
        limit ${lanes}::int
      ) locked), ''), true)`
}

const lockedLanes = sql`string_to_array(nullif(current_setting('kerp.lanes'), ''), ',')::smallint[]`

// Lane by lane with an order and a limit inside, so that the planner has no choice but to walk the right index: statistics of
// a queue are always stale, and once the plan was a sort of the whole table it was 15 times slower. Rows with a key go without
// FOR UPDATE: the lane's lock stands for it, and each row lock would be a write of its own (160,000/s against 200,000/s).
function keyedRows({ consumer, most, keyedLimit }: TakeOptions, left: LeftBehind): Statement {
  return sql`
    with keyed as materialized (select array(
      select x.ctid from unnest(${lockedLanes}) as l (lane)
      cross join lateral (
        (select q.ctid from kerp.deliveries q
         where q.consumer_id = ${consumer}::int and q.lane = l.lane and q.due_at <= now() and ${mayTake(left)} and not exists (${blocking(consumer)})
         order by q.due_at, q.id limit ${literal(most)})
        union all
        (select q.ctid from kerp.deliveries q
         where q.consumer_id = ${consumer}::int and q.lane = l.lane and q.due_at is null and ${mayTakeReady(left)}
           and not exists (${blocking(consumer)})
         order by q.id limit ${literal(most)})
      ) x limit ${keyedLimit}::int
    ) as ctids)`
}

function mayTake(left: LeftBehind): Statement {
  if (left === 'none') return sql`not q.leased`
  if (left === 'once') return sql`q.leased and q.attempt = 0`
  if (left === 'again') return sql`q.leased and q.attempt > 0`
  return sql`(not q.leased or q.attempt = 0 or q.id = ${left}::bigint)`
}

function mayTakeReady(left: LeftBehind): Statement {
  return left === 'once' || left === 'again' ? sql`false` : sql`true`
}

/** An earlier event of the same key that was tried and waits, or was left behind by a process that died. */
function blocking(consumer: number): Statement {
  return sql`
    select from kerp.deliveries b
    where b.consumer_id = ${consumer}::int and b.key = q.key and b.id < q.id
      and b.key is not null and b.claims > 0 and b.due_at is not null and (b.due_at > now() or b.leased)`
}

/** What the keyed ones leave of the limit; here everyone takes what nobody has locked. */
function unorderedRows({ consumer, most, limit, low }: TakeOptions, left: LeftBehind): Statement {
  return sql`array(
    select x.ctid from (
      select * from (select q.ctid from kerp.deliveries q
       where q.consumer_id = ${consumer}::int and q.lane = ${unordered}::smallint and q.due_at <= now() and ${mayTake(left)}
       order by q.due_at, q.id limit ${literal(most)} for update skip locked) q
      union all
      select * from (select q.ctid from kerp.deliveries q
       where q.consumer_id = ${consumer}::int and q.lane = ${unordered}::smallint and q.due_at is null and ${mayTakeReady(left)} and q.id > ${low}::bigint
       order by q.id limit ${literal(most)} for update skip locked) q
    ) x limit ${limit}::int - (select cardinality(ctids) from keyed))`
}

const columns = sql`d.id, d.lane, d.attempt, d.claims, d.due_at is not null, d.key, d.envelope`

function toRows(raw: (string | null)[][]): Row[] {
  const rows = raw.map(([id, lane, failures, claims, waited, key, envelope, leftBehind]) => ({
    id: Number(id),
    lane: Number(lane),
    failures: Number(failures),
    claims: Number(claims),
    waited: waited === 't',
    leftBehind: leftBehind === 't',
    key: key!,
    envelope: envelope!,
  }))
  // DELETE returns them in the order of the heap.
  return rows.sort((a, b) => a.id - b.id)
}
