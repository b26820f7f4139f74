// A call to the outside in two halves. `perform` may run again after a crash, always with the same idempotency key; `commit`
// has its effect exactly once. Here the first commit fails, and the bank is not called again: its answer was kept.
// Run it: node examples/03-perform-and-commit.ts
// In a project of your own, '../src/index.ts' is 'kerp' and '../src/transports/postgres/index.ts' is 'kerp/transports/postgres'.
import { rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { z } from 'zod'
import { defineEvent, emit, engineMigrations, exponential, migrate, on, permanent, wonSchema } from '../src/index.ts'
import { openDatabase, openEmbeddedPostgres, routeEvents, startHints, startWorker } from '../src/index.ts'
import { postgresTransport } from '../src/transports/postgres/index.ts'

// The outside: a bank that answers every call with the number of a transfer.
let calls = 0
const bank = createServer((_request, response) => response.end(JSON.stringify({ transfer: `T-${++calls}` })))
await new Promise<void>((resolve) => bank.listen(0, '127.0.0.1', resolve))
const bankUrl = `http://127.0.0.1:${(bank.address() as AddressInfo).port}/transfers`

const PaymentRequested = defineEvent('payment.requested', {
  data: z.object({ paymentId: z.string(), amount: wonSchema() }),
  key: ({ paymentId }) => paymentId,
})

let failures = 1
const pay = on(PaymentRequested, {
  name: 'bank.payment.requested',
  attempts: 5,
  retry: exponential('200ms', { max: '1m' }),
  deadline: '10s',
  async perform({ data }, { signal, idempotencyKey }) {
    const headers = { 'idempotency-key': idempotencyKey }
    const answer = await fetch(bankUrl, { method: 'POST', headers, body: String(data.amount), signal })
    if (answer.status === 422) throw permanent('the bank refuses this payment')
    if (!answer.ok) throw new Error(`the bank answered ${answer.status}`)
    return (await answer.json()) as { transfer: string }
  },
  async commit({ transfer }, tx, { data }) {
    if (failures-- > 0) throw new Error('the table is locked')
    await tx.sql`insert into payments (id, transfer) values (${data.paymentId}, ${transfer})`
  },
})

const folder = join(tmpdir(), `kerp-example-${process.pid}`)
const server = await openEmbeddedPostgres({ folder })
const database = await openDatabase({ url: server.url })
await migrate(database, [engineMigrations])
await database.query('create table payments (id text primary key, transfer text not null)')
const hints = await startHints(database)
await routeEvents(database, 'database')
const transport = postgresTransport({ database, hints })
const worker = await startWorker({ database, transport, subscriptions: [pay] })

await database.transaction((tx) => emit(tx, PaymentRequested, { paymentId: 'P-1', amount: 3_000_000n }))

let payments = await database.sql<{ id: string; transfer: string }>`select id, transfer from payments`
while (payments.length === 0) {
  await setTimeout(20)
  payments = await database.sql<{ id: string; transfer: string }>`select id, transfer from payments`
}
console.log(`payments: ${payments.map(({ id, transfer }) => `${id} by ${transfer}`).join(', ')}`)
console.log(`calls of the bank: ${calls}`)

await worker.drain()
await hints.close()
await database.close()
await server.stop()
bank.close()
await rm(folder, { recursive: true })
