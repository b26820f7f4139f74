import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import type { Database } from '../../engine/database/database.ts'
import { maxEventBytes } from '../../engine/outbox/emit.ts'
import type { PublishResult } from '../../engine/transport.ts'

interface PublishRow {
  event_id: string
  event_type: string
  company_id: string
  key: string | null
  envelope: string
}

/**
 * Takes events in from elsewhere, an outbox or another broker. Each is accepted once for as long as the history is kept: a second
 * copy is confirmed and dropped.
 */
export async function publish(database: Database, batch: readonly Envelope[]): Promise<PublishResult[]> {
  const results: PublishResult[] = batch.map(() => ({ ok: true }))
  const rows: PublishRow[] = []
  batch.forEach((envelope, index) => {
    const text = JSON.stringify(envelope)
    const bytes = Buffer.byteLength(text)
    if (bytes > maxEventBytes) {
      const error = new KerpError(
        'EVENT_TOO_LARGE',
        `${envelope.eventType} is ${bytes} bytes, at most ${maxEventBytes} can be sent`,
      )
      results[index] = { ok: false, error, retryable: false }
      return
    }
    const { eventId, eventType, companyId, key } = envelope
    rows.push({ event_id: eventId, event_type: eventType, company_id: companyId, key, envelope: text })
  })
  const unroutable = await insert(database, rows)
  if (unroutable.size === 0) return results
  return results.map((result, index) => {
    const { eventType } = batch[index]!
    if (!result.ok || !unroutable.has(eventType)) return result
    return {
      ok: false,
      error: new KerpError('EVENT_UNROUTABLE', `nobody is subscribed to ${eventType}`),
      retryable: false,
    }
  })
}

async function insert(database: Database, rows: readonly PublishRow[]): Promise<Set<string>> {
  if (rows.length === 0) return new Set()
  const unroutable = await database.transaction(async (tx) => {
    const found = await tx.sql<{ event_type: string }>`
      with given as materialized (
        select distinct on (e.event_id) e.*
        from rows from (json_to_recordset(${JSON.stringify(rows)}::json) as (event_id uuid, event_type text, company_id text, key text, envelope text))
          with ordinality as e (event_id, event_type, company_id, key, envelope, place)
        where exists (select from kerp.subscriptions s where s.event_type = e.event_type)
        order by e.event_id, place
      ), fresh as (
        -- As a consumer of number 0, this queue remembers what it has taken in.
        insert into kerp.processed_events (event_id, consumer_id) select event_id, 0 from given on conflict do nothing returning event_id
      ), history as (
        insert into kerp.events (event_id, event_type, company_id, key, envelope)
        select event_id, event_type, company_id, key, envelope from given join fresh using (event_id) on conflict do nothing
      ), queued as (
        insert into kerp.deliveries (consumer_id, lane, event_id, key, envelope)
        select s.consumer_id, kerp.lane_of(g.key), g.event_id, g.key, g.envelope
        from given g join fresh using (event_id) join kerp.subscriptions s using (event_type) order by g.place
      )
      select distinct t.event_type from unnest(${[...new Set(rows.map((row) => row.event_type))]}::text[]) as t (event_type)
      where not exists (select from kerp.subscriptions s where s.event_type = t.event_type)`
    for (const { event_type } of rows) tx.emitted(event_type)
    return found
  })
  return new Set(unroutable.map((row) => row.event_type))
}

/** Nothing of the batch was taken in: each may be tried again. */
export function allFailed(batch: readonly Envelope[], thrown: unknown): PublishResult[] {
  const error = toError(thrown)
  return batch.map(() => ({ ok: false, error, retryable: true }))
}
