import type { Envelope } from '../../kernel/envelope.ts'
import { readEnvelope } from '../../kernel/envelope.ts'
import { toError } from '../../kernel/errors.ts'
import type { Database } from '../database/database.ts'
import { writeReceipt } from '../inbox/store.ts'
import type { DeadLetter } from '../transport.ts'
import { deadLetterSink } from '../worker/dead-letters.ts'

export interface OutboxRow {
  readonly id: number
  readonly envelope: Envelope
}

/** The relay's view of the outbox; the simulator brings one of its own. */
export interface OutboxStore {
  /** Shards that have rows. */
  pending(): Promise<number[]>
  /**
   * Rows of a shard in the order of their ids: those after `afterId`, and those before it whose key is among them. Such a one comes
   * from a transaction that was slow to commit, and must go first.
   */
  read(shard: number, afterId: number, limit: number): Promise<OutboxRow[]>
  /** Deletes what the broker has confirmed. */
  confirm(shard: number, rows: readonly OutboxRow[], startedAt: number): Promise<void>
  /** Moves what no broker will ever take to the dead letters. */
  bury(shard: number, row: OutboxRow, letter: DeadLetter): Promise<void>
}

/** As the function kerp.emit deals them out. */
export const shardCount = 8

export function postgresOutbox(database: Database): OutboxStore {
  const deadLetter = deadLetterSink(database)
  return {
    async pending() {
      const rows = await database.sql<{ shard: number }>`
        select shard::int from generate_series(0, ${shardCount}::int - 1) shard
        where exists (select from kerp.outbox_events o where o.shard = shard.shard)`
      return rows.map(({ shard }) => shard)
    },
    async read(shard, afterId, limit) {
      const rows = await database.sql<{ id: bigint; envelope: string }>`
        with fresh as materialized (
          select id, key, envelope from kerp.outbox_events where shard = ${shard} and id > ${afterId} order by id limit ${limit}
        )
        select id, envelope from fresh
        union all
        select late.id, late.envelope from (select distinct key from fresh where key is not null) keys
        cross join lateral (
          select id, envelope from kerp.outbox_events o where o.shard = ${shard} and o.key = keys.key and o.id <= ${afterId} order by o.id limit ${limit}
        ) late
        order by id`
      const readable: OutboxRow[] = []
      for (const { id, envelope } of rows) {
        try {
          readable.push({ id: Number(id), envelope: readEnvelope(envelope) })
        } catch (thrown) {
          const letter = {
            consumer: 'relay',
            raw: envelope,
            reason: 'MESSAGE_UNREADABLE',
            error: toError(thrown),
            attempts: 1,
          }
          await bury(shard, Number(id), letter)
        }
      }
      return readable
    },
    async confirm(shard, rows, startedAt) {
      await database.transaction(async (tx) => {
        void writeReceipt(
          tx,
          0,
          rows.map(({ envelope }) => ({ envelope, attempt: 1 })),
          startedAt,
        )
        await tx.sql`delete from kerp.outbox_events where shard = ${shard} and id = any (${rows.map(({ id }) => id)}::bigint[])`
      })
    },
    bury: (shard, row, letter) => bury(shard, row.id, letter),
  }

  async function bury(shard: number, id: number, letter: DeadLetter): Promise<void> {
    await database.transaction(async (tx) => {
      await deadLetter(letter, tx)
      await tx.sql`delete from kerp.outbox_events where shard = ${shard} and id = ${id}`
    })
  }
}
