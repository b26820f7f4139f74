import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import type { Database } from '../../engine/database/database.ts'
import type { EmitRow } from '../../engine/outbox/emit.ts'
import { toRow } from '../../engine/outbox/emit.ts'
import type { PublishResult } from '../../engine/transport.ts'

/**
 * Takes events in from elsewhere, an outbox or another broker. Each is accepted once for as long as the history is kept: a second
 * copy is confirmed and dropped.
 */
export async function publish(database: Database, batch: readonly Envelope[]): Promise<PublishResult[]> {
  const results: PublishResult[] = batch.map(() => ({ ok: true }))
  const rows: EmitRow[] = []
  batch.forEach((envelope, index) => {
    try {
      rows.push(toRow(envelope))
    } catch (thrown) {
      results[index] = { ok: false, error: toError(thrown), retryable: false }
    }
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

async function insert(database: Database, rows: readonly EmitRow[]): Promise<Set<string>> {
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
