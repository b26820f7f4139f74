// An event emitted inside a transaction of the plain `pg` client: it comes with the commit and goes with the rollback.
// Run it: node examples/02-plain-pg-transaction.ts
// In a project of your own, '../src/index.ts' is 'kerp' and '../src/transports/postgres/index.ts' is 'kerp/transports/postgres'.
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { z } from 'zod'
import { defineEvent, emit, engineMigrations, migrate, on, recentEvents } from '../src/index.ts'
import { openDatabase, openEmbeddedPostgres, routeEvents, startHints, startWorker } from '../src/index.ts'
import { postgresTransport } from '../src/transports/postgres/index.ts'

const SeatBooked = defineEvent('seat.booked', {
  data: z.object({ seat: z.string(), guest: z.string() }),
  key: ({ seat }) => seat,
})

const printTicket = on(SeatBooked, {
  name: 'tickets.seat.booked',
  handle: ({ data }, tx) => tx.sql`insert into tickets (seat, guest) values (${data.seat}, ${data.guest})`,
})

const folder = join(tmpdir(), `kerp-example-${process.pid}`)
const server = await openEmbeddedPostgres({ folder })
const database = await openDatabase({ url: server.url })
await migrate(database, [engineMigrations])
await database.query(`
  create table seats (seat text primary key, guest text not null);
  create table tickets (seat text primary key, guest text not null)`)
const hints = await startHints(database)
await routeEvents(database, 'database')
const transport = postgresTransport({ database, hints })
const worker = await startWorker({ database, transport, subscriptions: [printTicket] })

// From here on it is somebody else's service, with a client of its own.
const pool = new pg.Pool({ connectionString: server.url })

async function book(seat: string, guest: string, ending: 'commit' | 'rollback'): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    await client.query('insert into seats (seat, guest) values ($1, $2)', [seat, guest])
    await emit(client, SeatBooked, { seat, guest })
    await client.query(ending)
  } catch (error) {
    await client.query('rollback')
    throw error
  } finally {
    client.release()
  }
}

await book('12A', '이서준', 'rollback')
await book('12B', '박지우', 'commit')

// This client gives no hint after its commit, so the worker finds the event at its next look: within a second.
let tickets = await database.sql<{ seat: string; guest: string }>`select seat, guest from tickets`
while (tickets.length === 0) {
  await setTimeout(20)
  tickets = await database.sql<{ seat: string; guest: string }>`select seat, guest from tickets`
}
const events = await recentEvents(database, { limit: 10 })
console.log(`tickets: ${tickets.map(({ seat, guest }) => `${seat} ${guest}`).join(', ')}`)
console.log(`events: ${events.length}`)

await pool.end()
await worker.drain()
await hints.close()
await database.close()
await server.stop()
await rm(folder, { recursive: true })
