import type { Database } from '../database/database.ts'

/**
 * Says where events go that are emitted from now on: straight to their consumers in the database, or through the outbox to a broker.
 * What was emitted before stays on the way it was on.
 */
export async function routeEvents(database: Database, to: 'database' | 'broker', eventType = '*'): Promise<void> {
  const direct = to === 'database'
  await database.sql`
    insert into kerp.routes (event_type, direct) values (${eventType}, ${direct})
    on conflict (event_type) do update set direct = excluded.direct where routes.direct <> excluded.direct`
}
