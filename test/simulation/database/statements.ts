import type { Envelope } from '../../../src/kernel/envelope.ts'
import type { DeadLetter } from '../../../src/engine/transport.ts'
import { hash } from '../random.ts'
import { sqlError } from './errors.ts'
import type { SimServer } from './server.ts'
import type { Effect, SimTransaction, Tables } from './transaction.ts'

type Statement = (
  tx: SimTransaction,
  values: never[],
  server: SimServer,
) => readonly unknown[] | Promise<readonly unknown[]>

/** Few, so that there is company in each. */
const usedShards = 3

/** What the engine sends, and in plain words what the simulator's own stores and handlers do. */
export const statements: Readonly<Record<string, (...args: Parameters<Statement>) => Promise<unknown[]>>> = all({
  'select kerp.emit($1)': (tx, [batch]: [string], server) => {
    for (const row of JSON.parse(batch) as { event_id: string; key: string | null; envelope: string }[]) {
      const id = server.nextNumber()
      const envelope = JSON.parse(row.envelope) as Envelope
      tx.put('events', row.event_id, envelope)
      tx.put('outbox', String(id), { id, shard: hash(row.key ?? row.event_id) % usedShards, envelope })
    }
    return []
  },

  'outbox: shards with rows': (_tx, _values, server) => [
    ...new Set([...server.table('outbox').values()].map(({ shard }) => shard)),
  ],
  'outbox: read a shard, no key from its middle': (_tx, [shard, afterId, limit]: [number, number, number], server) => {
    const rows = rowsOf(server, shard)
    const fresh = rows.filter(({ id }) => id > afterId).slice(0, limit)
    const keys = new Set(fresh.map(({ envelope }) => envelope.key))
    keys.delete(null)
    const late = rows.filter(({ id }) => id <= afterId)
    const before = [...keys].flatMap((key) => late.filter(({ envelope }) => envelope.key === key).slice(0, limit))
    return [...before.sort(byId), ...fresh]
  },
  'outbox: delete': async (tx, [ids]: [number[]]) => {
    for (const id of [...ids].sort((one, other) => one - other)) {
      await tx.lock('outbox', String(id))
      tx.put('outbox', String(id), undefined)
    }
    return []
  },

  'inbox: remember': async (tx, [consumer, eventIds]: [string, string[]]) => {
    const fresh: string[] = []
    for (const id of eventIds) if (await tx.insert('inbox', `${consumer} ${id}`, true)) fresh.push(id)
    return fresh
  },
  'write a receipt': () => [],

  'kept results: find': (_tx, [consumer, eventIds]: [string, string[]], server) =>
    eventIds.map((id) => {
      const name = `${consumer} ${id}`
      return { id, kept: server.table('kept').get(name), isDone: server.table('inbox').has(name) }
    }),
  'kept results: keep': async (tx, [consumer, eventId, result]: [string, string, unknown]) => {
    const name = `${consumer} ${eventId}`
    if (tx.get('inbox', name) === undefined) await tx.insert('kept', name, { result })
    return []
  },
  'kept results: drop': async (tx, [consumer, eventIds]: [string, string[]]) => {
    for (const id of [...eventIds].sort()) {
      if (tx.get('kept', `${consumer} ${id}`) === undefined) continue
      await tx.lock('kept', `${consumer} ${id}`)
      tx.put('kept', `${consumer} ${id}`, undefined)
    }
    return []
  },

  'dead letters: insert': async (tx, [letter]: [DeadLetter]) => {
    const { consumer, envelope } = letter
    const name = `${consumer} ${envelope?.eventId}`
    // As among the real consumers: the relay is none, and keeps no inbox.
    const isNew = consumer === 'relay' || envelope === undefined || (await tx.insert('inbox', name, true))
    if (isNew) await tx.insert('dead', name, letter)
    return []
  },

  /** Locks the row of a key and counts its events, so that those who emit for one key do it one after the other. */
  'next step of a key': async (tx, [key]: [string]) => {
    await tx.lock('versions', key)
    const step = (tx.get('versions', key) ?? 0) + 1
    tx.put('versions', key, step)
    return [step]
  },
  /** Nothing in the table would refuse the same effect twice: that is for the engine to avoid. */
  'take effect': (tx, [effect]: [Effect], server) => {
    tx.put('effects', String(server.nextNumber()), effect)
    return []
  },
  'look around': () => [],
  'break a rule': () => {
    throw sqlError('23514', 'new row violates check constraint')
  },
})

const byId = (one: Tables['outbox'], other: Tables['outbox']) => one.id - other.id

function rowsOf(server: SimServer, shard: number): Tables['outbox'][] {
  const rows = [...server.table('outbox').values()].filter((row) => row.shard === shard)
  return rows.sort(byId)
}

function all(given: Record<string, (tx: SimTransaction, values: never, server: SimServer) => unknown>) {
  return Object.fromEntries(
    Object.entries(given).map(([text, statement]) => [
      text,
      async (tx: SimTransaction, values: never[], server: SimServer) =>
        (await statement(tx, values as never, server)) as unknown[],
    ]),
  )
}
