// One event, from the commit that emits it to the effect of its handler.
// Run it: node examples/01-first-event.ts
// In a project of your own, '../src/index.ts' is 'kerp' and '../src/transports/postgres/index.ts' is 'kerp/transports/postgres'.
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { z } from 'zod'
import { defineEvent, emit, engineMigrations, formatWon, lifeOfEvent, migrate, on } from '../src/index.ts'
import { openDatabase, openEmbeddedPostgres, routeEvents, startHints, startWorker, wonSchema } from '../src/index.ts'
import { postgresTransport } from '../src/transports/postgres/index.ts'

const OrderPlaced = defineEvent('order.placed', {
  data: z.object({ orderId: z.string(), amount: wonSchema() }),
  key: ({ orderId }) => orderId,
})

const writeInvoice = on(OrderPlaced, {
  name: 'billing.order.placed',
  handle: ({ data }, tx) => tx.sql`insert into invoices (order_id, amount) values (${data.orderId}, ${data.amount})`,
})

const folder = join(tmpdir(), `kerp-example-${process.pid}`)
const server = await openEmbeddedPostgres({ folder })
const database = await openDatabase({ url: server.url })
await migrate(database, [engineMigrations])
await database.query(`
  create table orders (id text primary key, amount bigint not null);
  create table invoices (order_id text primary key, amount bigint not null)`)

const hints = await startHints(database)
const transport = postgresTransport({ database, hints })
await routeEvents(database, 'database')
const worker = await startWorker({ database, transport, subscriptions: [writeInvoice] })

const eventId = await database.transaction(async (tx) => {
  await tx.sql`insert into orders (id, amount) values (${'A-1'}, ${42_000n})`
  return emit(tx, OrderPlaced, { orderId: 'A-1', amount: 42_000n })
})

let life = await lifeOfEvent(database, eventId)
while (life?.consumers[0]?.state !== 'done') {
  await setTimeout(5)
  life = await lifeOfEvent(database, eventId)
}
const [invoice] = await database.sql<{ order_id: string; amount: bigint }>`select order_id, amount from invoices`
console.log(`invoice of ${formatWon(invoice!.amount)} for order ${invoice!.order_id}`)
console.log(`${life.consumers[0].consumer}: ${life.consumers[0].state} at attempt ${life.consumers[0].attempts}`)

await worker.drain()
await hints.close()
await database.close()
await server.stop()
await rm(folder, { recursive: true })
