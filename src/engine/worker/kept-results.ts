import type { Database } from '../database/database.ts'
import type { KeptResults } from './perform.ts'

export function postgresResults(database: Database, consumerId: number): KeptResults {
  return {
    async find(eventIds) {
      const rows = await database.sql<{ event_id: string; result: string | null; is_done: boolean }>`
        select event_id, result, false as is_done from kerp.perform_results where consumer_id = ${consumerId} and event_id = any (${eventIds}::uuid[])
        union all
        select event_id, null, true from kerp.processed_events where consumer_id = ${consumerId} and event_id = any (${eventIds}::uuid[])`
      const kept = rows.filter(({ is_done }) => !is_done)
      return {
        answers: new Map(
          kept.map(({ event_id, result }) => [event_id, result === null ? undefined : JSON.parse(result)]),
        ),
        done: new Set(rows.filter(({ is_done }) => is_done).map(({ event_id }) => event_id)),
      }
    },
    async keep(eventId, result) {
      // `undefined` has no JSON: the call answered nothing.
      const text = result === undefined ? null : JSON.stringify(result)
      await database.sql`
        insert into kerp.perform_results (consumer_id, event_id, result) select ${consumerId}::int, ${eventId}::uuid, ${text}::text
        -- Of no use any more when somebody else, who took over, has made the effect.
        where not exists (select from kerp.processed_events p where p.event_id = ${eventId}::uuid and p.consumer_id = ${consumerId}::int)
        on conflict (consumer_id, event_id) do nothing`
    },
    drop(tx, eventIds) {
      return tx.sql`delete from kerp.perform_results where consumer_id = ${consumerId} and event_id = any (${eventIds}::uuid[])`
    },
  }
}
