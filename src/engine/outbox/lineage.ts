import type { Envelope } from '../../kernel/envelope.ts'
import { readEnvelope } from '../../kernel/envelope.ts'
import { isUuid } from '../../kernel/ids.ts'
import type { Database } from '../database/database.ts'
import { spanTime } from '../inbox/store.ts'

export interface EventLife {
  eventId: string
  eventType: string
  companyId: string
  key: string | null
  version: number
  data: unknown
  traceparent: string | null
  correlationId: string | null
  causationId: string | null
  emittedAt: string
  /** When the broker had it; with the database as the broker that is the commit itself. Null: it still waits in the outbox. */
  relayed: { at: string; afterMs: number } | null
  consumers: ConsumerLife[]
  /** The events that its handlers emitted. */
  caused: { eventId: string; eventType: string }[]
}

export type ConsumerState = 'ready' | 'running' | 'waiting' | 'done' | 'dead' | 'redriven' | 'discarded' | 'unknown'

export interface ConsumerLife {
  consumer: string
  state: ConsumerState
  attempts: number
  startedAt: string | null
  doneAt: string | null
  /** From the relay to the start, and from the start to the committed effect. */
  waitedMs: number | null
  tookMs: number | null
  /** From the emit to the committed effect. */
  afterMs: number | null
  nextAttemptAt: string | null
  lastError: string | null
}

interface EventRow {
  event_id: string
  event_type: string
  company_id: string
  key: string | null
  emitted_at: Date
  envelope: string
}

/** Everything that is known about one event, read from what the machinery keeps anyway. */
export async function lifeOfEvent(database: Database, eventId: string): Promise<EventLife | undefined> {
  if (!isUuid(eventId)) return undefined
  const [row] =
    await database.sql<EventRow>`select event_id, event_type, company_id, key, emitted_at, envelope from kerp.events where event_id = ${eventId}`
  if (!row) return undefined
  const envelope = tryEnvelope(row)
  const [receipts, pending, dead, outbox, subscribed, caused] = await Promise.all([
    readReceipts(database, eventId),
    readPending(database, envelope),
    readDead(database, eventId),
    readOutbox(database, envelope),
    readSubscribed(database, envelope.eventType),
    readCaused(database, envelope),
  ])
  const emittedAt = row.emitted_at.toISOString()
  const relayReceipt = receipts.find(({ consumer }) => consumer === null)
  const relayed = relayReceipt
    ? { at: relayReceipt.doneAt, afterMs: between(emittedAt, relayReceipt.doneAt) }
    : outbox
      ? null
      : { at: emittedAt, afterMs: 0 }
  const names = new Set([
    ...subscribed,
    ...pending.keys(),
    ...dead.keys(),
    ...receipts.flatMap(({ consumer }) => consumer ?? []),
  ])
  const consumers = [...names].sort().map((name) => {
    const receipt = receipts.find(({ consumer }) => consumer === name)
    if (receipt) return doneLife(name, receipt, emittedAt, relayed?.at ?? emittedAt)
    return pending.get(name) ?? dead.get(name) ?? { ...blank(name), state: 'unknown' as const }
  })
  const { eventType, companyId, key, version, data } = envelope
  return {
    eventId,
    eventType,
    companyId,
    key,
    version,
    data,
    traceparent: envelope.traceparent ?? null,
    correlationId: envelope.correlationId ?? null,
    causationId: envelope.causationId ?? null,
    emittedAt,
    relayed,
    consumers,
    caused,
  }
}

/** Anyone may write into the table: of what cannot be read, the columns are told, and its text as the data. */
function tryEnvelope({ event_id, event_type, company_id, key, emitted_at, envelope }: EventRow): Envelope {
  try {
    return readEnvelope(envelope)
  } catch {
    const timestamp = emitted_at.toISOString()
    return {
      eventId: event_id,
      eventType: event_type,
      companyId: company_id,
      key,
      timestamp,
      version: 1,
      data: envelope,
    }
  }
}

function blank(consumer: string): ConsumerLife {
  return {
    consumer,
    state: 'ready',
    attempts: 0,
    startedAt: null,
    doneAt: null,
    waitedMs: null,
    tookMs: null,
    afterMs: null,
    nextAttemptAt: null,
    lastError: null,
  }
}

function between(from: string, to: string): number {
  return Math.max(0, Date.parse(to) - Date.parse(from))
}

interface Receipt {
  /** Null: the relay. */
  consumer: string | null
  startedAt: string
  doneAt: string
  attempts: number
}

function doneLife(
  consumer: string,
  { startedAt, doneAt, attempts }: Receipt,
  emittedAt: string,
  relayedAt: string,
): ConsumerLife {
  return {
    ...blank(consumer),
    state: 'done',
    attempts,
    startedAt,
    doneAt,
    waitedMs: between(relayedAt, startedAt),
    tookMs: between(startedAt, doneAt),
    afterMs: between(emittedAt, doneAt),
  }
}

async function readReceipts(database: Database, eventId: string): Promise<Receipt[]> {
  const rows = await database.sql<{ consumer: string | null; started_at: Date; done_at: Date; attempts: number }>`
    select c.name as consumer, r.started_at, r.done_at, coalesce(r.attempts[(r.place - 1) / 16 + 1], 1)::int as attempts
    from (select *, position(uuid_send(${eventId}::uuid) in event_ids) as place from kerp.receipts where span @> ${spanTime(eventId)}::bigint) r
    left join kerp.consumers c on c.id = r.hop
    where r.place > 0 order by r.done_at`
  return rows.map(({ consumer, started_at, done_at, attempts }) => ({
    consumer,
    startedAt: started_at.toISOString(),
    doneAt: done_at.toISOString(),
    attempts,
  }))
}

async function readPending(database: Database, { eventId, key }: Envelope): Promise<Map<string, ConsumerLife>> {
  // In two halves, one for each of the partial indexes.
  const rows = await database.sql<{
    consumer: string
    attempt: number
    due_at: Date | null
    state: ConsumerState
    last_error: string | null
  }>`
    select c.name as consumer, d.attempt, d.due_at, d.last_error,
           case when d.due_at is null or d.due_at <= now() then 'ready' when d.leased then 'running' else 'waiting' end as state
    from kerp.consumers c cross join lateral (
      select * from kerp.deliveries where consumer_id = c.id and lane = kerp.lane_of(${key}) and due_at is null and event_id = ${eventId}
      union all
      select * from kerp.deliveries where consumer_id = c.id and lane = kerp.lane_of(${key}) and due_at is not null and event_id = ${eventId}
    ) d`
  const lives = rows.map(({ consumer, attempt, due_at, state, last_error }): [string, ConsumerLife] => [
    consumer,
    {
      ...blank(consumer),
      state,
      attempts: attempt,
      nextAttemptAt: state === 'waiting' ? due_at!.toISOString() : null,
      lastError: last_error,
    },
  ])
  return new Map(lives)
}

async function readDead(database: Database, eventId: string): Promise<Map<string, ConsumerLife>> {
  const rows = await database.sql<{
    consumer: string
    state: ConsumerState
    attempts: number
    died_at: Date
    message: string | null
  }>`
    select consumer, state, attempts, died_at, error -> 0 ->> 'message' as message from kerp.dead_letters where event_id = ${eventId} order by id`
  return new Map(
    rows.map(({ consumer, state, attempts, died_at, message }) => [
      consumer,
      { ...blank(consumer), state, attempts, doneAt: died_at.toISOString(), lastError: message },
    ]),
  )
}

async function readOutbox(database: Database, { eventId, key }: Envelope): Promise<boolean> {
  const rows = await database.sql`
    select from kerp.outbox_events where shard = (hashtext(coalesce(${key}::text, ${eventId}::uuid::text)) & 7) and event_id = ${eventId}`
  return rows.length > 0
}

async function readSubscribed(database: Database, eventType: string): Promise<string[]> {
  const rows = await database.sql<{ name: string }>`
    select c.name from kerp.subscriptions s join kerp.consumers c on c.id = s.consumer_id where s.event_type = ${eventType}`
  return rows.map(({ name }) => name)
}

/** Handlers run within moments, so only the ids after this one's, of the same hour, are looked at. */
async function readCaused(
  database: Database,
  { eventId, timestamp }: Envelope,
): Promise<{ eventId: string; eventType: string }[]> {
  const rows = await database.sql<{ event_id: string; event_type: string }>`
    select event_id, event_type from kerp.events
    where event_id > ${eventId} and emitted_at between ${timestamp}::timestamptz - interval '1 minute' and ${timestamp}::timestamptz + interval '1 hour'
      and envelope like ${`%"causationId":"${eventId}"%`}
    order by event_id limit 100`
  return rows.map(({ event_id, event_type }) => ({ eventId: event_id, eventType: event_type }))
}

export interface RecentEvent {
  eventId: string
  eventType: string
  companyId: string
  key: string | null
  emittedAt: string
  data: unknown
}

/** Newest first, or after an id oldest first: for a list and for following. */
export async function recentEvents(
  database: Database,
  { before, after, limit, type }: { before?: string; after?: string; limit: number; type?: string },
): Promise<RecentEvent[]> {
  const rows = after
    ? await database.sql<EventRow>`
        select event_id, event_type, company_id, key, emitted_at, envelope from kerp.events
        where event_id > ${after} and (${type ?? null}::text is null or event_type = ${type ?? null}) order by event_id limit ${limit}`
    : await database.sql<EventRow>`
        select event_id, event_type, company_id, key, emitted_at, envelope from kerp.events
        where (${before ?? null}::uuid is null or event_id < ${before ?? null}) and (${type ?? null}::text is null or event_type = ${type ?? null})
        order by event_id desc limit ${limit}`
  return rows.map(({ event_id, event_type, company_id, key: rowKey, emitted_at, envelope }) => {
    const { eventType, companyId, key, data } = tryEnvelope({
      event_id,
      event_type,
      company_id,
      key: rowKey,
      emitted_at,
      envelope,
    })
    return { eventId: event_id, eventType, companyId, key, emittedAt: emitted_at.toISOString(), data }
  })
}
