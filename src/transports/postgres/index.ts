import { KerpError } from '../../kernel/errors.ts'
import type { Database } from '../../engine/database/database.ts'
import { consumerIds } from '../../engine/inbox/store.ts'
import { maxEventBytes } from '../../engine/outbox/emit.ts'
import type { Hints } from '../../engine/outbox/hints.ts'
import type { Capabilities, Subscription, Topology, TopologyDiff, Transport } from '../../engine/transport.ts'
import { consumeInside } from './inside.ts'
import { consumeLeased } from './leased.ts'
import { allFailed, publish } from './publish.ts'
import { postgresPresence } from './presence.ts'
import { depthOf } from './settle.ts'

export interface PostgresTransportOptions {
  database: Database
  hints: Hints
  /** Of connections beside those of consumers, which tell their own. */
  onError?: (error: Error) => void
}

const capabilities: Capabilities = {
  ordering: 'key',
  delay: 'native',
  dedupWindowMs: 24 * 3600 * 1000,
  countsAttempts: true,
  lease: true,
  durable: true,
  refusesUnroutable: true,
  publishesAtomically: true,
  maxBatch: 2000,
  maxBytes: maxEventBytes,
}

/** The database as the broker: no further server, and the fastest of all because taking, effect and acknowledgement are one commit. */
export function postgresTransport({ database, hints, onError }: PostgresTransportOptions): Transport {
  const presence = postgresPresence(database, onError)
  const numbers = new Map<string, number>()

  async function numberOf({ name }: Subscription): Promise<number> {
    const known = numbers.get(name) ?? (await consumerNumber(database, name))
    numbers.set(name, known)
    return known
  }

  return {
    name: 'postgres',
    capabilities,
    async ensure(topology, { dryRun = false } = {}) {
      const diff = await compare(database, topology)
      if (!dryRun) await declare(database, topology)
      return diff
    },
    async publish(batch) {
      try {
        return await publish(database, batch)
      } catch (error) {
        return allFailed(batch, error)
      }
    },
    consume: (subscription, handle, options) => consumeLeased({ ...common(subscription), handle, options }),
    consumeInside: (subscription, handle, options) =>
      consumeInside({ ...common(subscription), handle, options, presence }),
    depth: async (subscription) => depthOf(database, await numberOf(subscription)),
    async close() {},
  }

  function common(subscription: Subscription) {
    return {
      database,
      consumer: subscription.name,
      number: () => numberOf(subscription),
      listen: (wake: () => void) => hints.listen(subscription.events, wake),
    }
  }
}

async function consumerNumber(database: Database, name: string): Promise<number> {
  const [row] = await database.sql<{ id: number }>`select id from kerp.consumers where name = ${name}`
  if (row) return row.id
  throw new KerpError('SUBSCRIPTION_INVALID', `${name} was never declared`, { hint: 'call ensure() with it first' })
}

async function compare(database: Database, { subscriptions }: Topology): Promise<TopologyDiff> {
  const rows = await database.sql<{ name: string; event_type: string }>`
    select c.name, s.event_type from kerp.subscriptions s join kerp.consumers c on c.id = s.consumer_id
    where c.name = any (${subscriptions.map(({ name }) => name)}::text[])`
  const there = new Set(rows.map(({ name, event_type }) => `${event_type} → ${name}`))
  const declared = new Set(subscriptions.flatMap(({ name, events }) => events.map((event) => `${event} → ${name}`)))
  return {
    created: [...declared.difference(there)],
    drift: [...there.difference(declared)].map(
      (line) => `${line} is set up but no longer declared; its events still arrive`,
    ),
  }
}

async function declare(database: Database, { subscriptions }: Topology): Promise<void> {
  const ids = await consumerIds(
    database,
    subscriptions.map(({ name }) => name),
  )
  const pairs = subscriptions.flatMap(({ name, events }) => events.map((event) => ({ event, id: ids.get(name)! })))
  await database.sql`
    insert into kerp.subscriptions (event_type, consumer_id)
    select p.event_type, p.consumer_id from unnest(${pairs.map(({ event }) => event)}::text[], ${pairs.map(({ id }) => id)}::int[]) as p (event_type, consumer_id)
    order by 1, 2 on conflict do nothing`
}
