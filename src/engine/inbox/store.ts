import type { Database } from '../database/database.ts'
import type { Tx } from '../database/transaction.ts'
import type { Delivery } from '../transport.ts'
import { timeOfId } from '../../kernel/ids.ts'

/** What a worker remembers to make an effect happen once on a transport that may deliver twice. */
export interface Inbox {
  /** Records these as done by the consumer, in the effect's own transaction; returns those that were not before. */
  remember(tx: Tx, eventIds: readonly string[]): Promise<Set<string>>
  /** Notes when a batch was done. */
  receipt(tx: Tx, batch: readonly Delivery[], startedAt: number): Promise<unknown>
}

export function postgresInbox(consumerId: number): Inbox {
  return {
    async remember(tx, eventIds) {
      // In order of id, so that two workers with the same events wait for each other instead of deadlocking.
      const fresh = await tx.sql<{ event_id: string }>`
        insert into kerp.processed_events (event_id, consumer_id)
        select id, ${consumerId}::int from unnest(${[...new Set(eventIds)].sort()}::uuid[]) as id
        on conflict do nothing returning event_id`
      return new Set(fresh.map((row) => row.event_id))
    },
    receipt: (tx, batch, startedAt) => writeReceipt(tx, consumerId, batch, startedAt),
  }
}

/** One row for a whole batch; `hop` is the consumer's number, 0 the relay's. */
export function writeReceipt(
  tx: Tx | Database,
  hop: number,
  batch: readonly Pick<Delivery, 'envelope' | 'attempt'>[],
  startedAt: number,
): Promise<unknown> {
  let first = Infinity
  let last = 0
  for (const { envelope } of batch) {
    const ms = spanTime(envelope.eventId)
    if (ms < first) first = ms
    if (ms > last) last = ms
  }
  const ids = Buffer.from(batch.map(({ envelope }) => envelope.eventId.replaceAll('-', '')).join(''), 'hex')
  const attempts = batch.some(({ attempt }) => attempt > 1) ? batch.map(({ attempt }) => attempt) : null
  return tx.sql`
    insert into kerp.receipts (hop, started_at, span, event_ids, attempts)
    values (${hop}, to_timestamp(${startedAt / 1000}::float8), int8range(${first}::bigint, ${last}::bigint, '[]'), ${ids}::bytea, ${attempts}::smallint[])`
}

/** Where an event is looked for among the receipts: 48 bits of its id, which in a UUIDv7 are its millisecond. */
export function spanTime(eventId: string): number {
  return timeOfId(eventId)
}

/** The number a consumer is known by in the tables. */
export async function consumerIds(database: Database | Tx, names: readonly string[]): Promise<Map<string, number>> {
  // Looked up first: an insert that does nothing would still use up a number at every start.
  await database.sql`
    insert into kerp.consumers (name)
    select n.name from unnest(${names}::text[]) as n (name) where not exists (select from kerp.consumers c where c.name = n.name) order by name
    on conflict do nothing`
  const rows = await database.sql<{
    id: number
    name: string
  }>`select id, name from kerp.consumers where name = any (${names}::text[])`
  return new Map(rows.map(({ id, name }) => [name, id]))
}
