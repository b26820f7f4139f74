import type { OutboxRow, OutboxStore } from '../../src/engine/outbox/store.ts'
import type { Inbox } from '../../src/engine/inbox/store.ts'
import type { DeadLetterSink } from '../../src/engine/transport.ts'
import type { KeptResults } from '../../src/engine/worker/perform.ts'
import type { SimPool } from './database/pool.ts'
import { sqlError } from './database/errors.ts'
import type { SimProcess } from './process.ts'
import type { World } from './world.ts'

/** The engine's tables in the simulated database: one statement here for each that the engine's own stores send. */
export function simOutbox(pool: SimPool, deadLetter: DeadLetterSink): OutboxStore {
  return {
    pending: () => pool.run<number>('outbox: shards with rows'),
    read: (shard, afterId, limit) =>
      pool.run<OutboxRow>('outbox: read a shard, no key from its middle', [shard, afterId, limit]),
    async confirm(_shard, rows) {
      await pool.transaction(async (tx) => {
        void tx.query('write a receipt')
        await tx.query('outbox: delete', [rows.map(({ id }) => id)])
      })
    },
    async bury(_shard, { id }, letter) {
      await pool.transaction(async (tx) => {
        await deadLetter(letter, tx)
        await tx.query('outbox: delete', [[id]])
      })
    },
  }
}

export function simInbox(consumer: string): Inbox {
  return {
    async remember(tx, eventIds) {
      const { rows } = await tx.query('inbox: remember', [consumer, [...new Set(eventIds)].sort()])
      return new Set(rows as string[])
    },
    receipt: (tx) => tx.query('write a receipt'),
  }
}

export function simResults(
  { checker }: World,
  process: SimProcess,
  pool: SimPool,
  consumer: string,
  isAlone: (eventId: string) => boolean,
): KeptResults {
  return {
    async find(eventIds) {
      for (const id of eventIds) checker.calls.looked(process, `${consumer} ${id}`, isAlone(id))
      const rows = await pool.run<{ id: string; kept?: { result: unknown }; isDone: boolean }>('kept results: find', [
        consumer,
        eventIds,
      ])
      return {
        answers: new Map(rows.flatMap(({ id, kept }) => (kept ? [[id, kept.result]] : []))),
        done: new Set(rows.flatMap(({ id, isDone }) => (isDone ? [id] : []))),
      }
    },
    async keep(eventId, result) {
      const name = `${consumer} ${eventId}`
      let failed = true
      checker.calls.keepStarted(name)
      try {
        await pool.run('kept results: keep', [consumer, eventId, result])
        failed = false
      } finally {
        checker.calls.keepEnded(name, failed)
      }
    },
    drop: (tx, eventIds) => tx.query('kept results: drop', [consumer, eventIds]),
  }
}

export function simDeadLetters({ faults }: World, process: SimProcess, pool: SimPool): DeadLetterSink {
  return async (letter, tx) => {
    if (faults.strikes('dead letter refused', process.name)) throw sqlError('53100', 'the disk is full')
    if (tx) await tx.query('dead letters: insert', [letter])
    else await pool.run('dead letters: insert', [letter])
  }
}
