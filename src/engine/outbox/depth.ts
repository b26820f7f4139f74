import type { Database } from '../database/database.ts'

export interface EngineDepth {
  outbox: { rows: number; oldestAgeMs: number | null }
  consumers: { consumer: string; ready: number; running: number; waiting: number; oldestAgeMs: number | null }[]
  deadLetters: number
  oldestTransactionMs: number | null
}

/** What waits where. */
export async function outboxDepth(database: Database): Promise<EngineDepth> {
  const [[outbox], consumers, [rest]] = await Promise.all([
    database.sql<{ rows: number; age: number | null }>`
      select count(*)::int as rows, extract(epoch from now() - min(emitted_at))::float8 * 1000 as age from kerp.outbox_events`,
    database.sql<{ consumer: string; ready: number; running: number; waiting: number; age: number | null }>`
      select c.name as consumer,
             count(d.id) filter (where d.due_at is null or d.due_at <= now())::int as ready,
             count(d.id) filter (where d.due_at > now() and d.leased)::int as running,
             count(d.id) filter (where d.due_at > now() and not d.leased)::int as waiting,
             extract(epoch from now() - kerp.time_of(min(d.event_id::text)::uuid))::float8 * 1000 as age
      from kerp.consumers c left join kerp.deliveries d on d.consumer_id = c.id group by c.name order by c.name`,
    database.sql<{ dead: number; oldest: number | null }>`
      select (select count(*)::int from kerp.dead_letters where state = 'dead') as dead,
             (select extract(epoch from clock_timestamp() - min(xact_start))::float8 * 1000 from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend') as oldest`,
  ])
  return {
    outbox: { rows: outbox!.rows, oldestAgeMs: outbox!.age },
    consumers: consumers.map(({ age, ...row }) => ({ ...row, oldestAgeMs: age })),
    deadLetters: rest!.dead,
    oldestTransactionMs: rest!.oldest,
  }
}
