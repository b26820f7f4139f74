import { pathToFileURL } from 'node:url'
import { resolve } from 'node:path'
import type { Backlog, Delivery, Environment, SubjectModule } from './subjects.ts'

/** One step of one subject, done by a fresh process: sent once over IPC, answered once. */
export type Order = { module: string; subject: string; env: Environment } & (
  | { step: 'prepare' | 'drain'; kind: 'drain' | 'effects' | 'relay'; backlog: Backlog }
  | { step: 'latency'; samples: number }
  | { step: 'emit'; emit: boolean; concurrency: number; transactions: number }
)

export type Answer = { ms: number; deliveries: Delivery[]; rssMb: number } | { error: string }

// Without its parent nobody waits for the answer, and a peer's sockets would keep it alive.
process.once('disconnect', () => process.exit(1))

process.once('message', async (order: Order) => {
  const answer = await carryOut(order).catch((error: unknown): Answer => {
    return { error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  })
  // A peer may leave timers or sockets behind; the answer is all that is wanted of this process.
  process.send!(answer, () => process.exit(0))
})

async function carryOut(order: Order): Promise<Answer> {
  const module: SubjectModule = await import(pathToFileURL(resolve(import.meta.dirname, order.module)).href)
  const result = { ms: 0, deliveries: [] as Delivery[] }
  if (order.step === 'latency') result.deliveries = await deliverAll(find(module.latency, order.subject), order)
  else if (order.step === 'emit') result.ms = await transactAll(find(module.emit, order.subject), order)
  else {
    const subject = find(module[order.kind], order.subject)
    if (order.step === 'prepare') await subject.prepare(order.env, order.backlog)
    else result.ms = await subject.drain(order.env, order.backlog)
    await subject.close()
  }
  return { ...result, rssMb: Math.round(process.resourceUsage().maxRSS / 1024) }
}

function find<S extends { name: string }>(subjects: S[] = [], name: string): S {
  const subject = subjects.find((candidate) => candidate.name === name)
  if (!subject) throw new Error(`no subject ${name}`)
  return subject
}

type LatencySubject = NonNullable<SubjectModule['latency']>[number]
type EmitSubject = NonNullable<SubjectModule['emit']>[number]

async function deliverAll(subject: LatencySubject, order: { env: Environment; samples: number }): Promise<Delivery[]> {
  const warmUp = 50
  const deliveries: Delivery[] = []
  await subject.start(order.env)
  for (let n = 0; n < warmUp + order.samples; n++) {
    const delivery = await subject.deliver(n)
    if (n >= warmUp) deliveries.push(delivery)
    // Lets the completion of this job pass, and keeps the samples from falling into step with anybody's timer.
    await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 10))
  }
  await subject.close()
  return deliveries
}

async function transactAll(
  subject: EmitSubject,
  { env, emit, concurrency, transactions }: Extract<Order, { step: 'emit' }>,
): Promise<number> {
  await subject.start(env, concurrency)
  let next = 0
  const loop = async (until: number) => {
    while (next < until) await subject.transaction(next++, emit)
  }
  const everyLoop = (until: number) => Promise.all(Array.from({ length: concurrency }, () => loop(until)))
  const warmUp = Math.min(500, transactions)
  await everyLoop(warmUp)
  const startedAt = performance.now()
  await everyLoop(warmUp + transactions)
  const ms = performance.now() - startedAt
  await subject.close()
  return ms
}
