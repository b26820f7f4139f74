import { fork } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Answer, Order } from './child.ts'
import type { Candidate } from './harness.ts'
import { percentile } from './harness.ts'
import type { Context } from './options.ts'
import { settle } from './servers.ts'
import type { Backlog, DrainSubject, EmitSubject, LatencySubject, SubjectModule } from './subjects.ts'
import { inspect } from './verify.ts'

type Done = Exclude<Answer, { error: string }>
type DrainKind = 'drain' | 'effects' | 'relay'

/** A subject, and the module in which a child finds it again. */
export interface Found<S> {
  module: string
  subject: S
}

export const modules = [
  'ours.ts',
  'peers/graphile-worker.ts',
  'peers/pg-boss.ts',
  'peers/bullmq.ts',
  'peers/hand-written.ts',
]

/** The subjects of one kind: all that are not optional, or those --only names. */
export async function find<K extends keyof SubjectModule>(
  kind: K,
  { options }: Context,
  from: string[] = modules,
): Promise<Found<NonNullable<SubjectModule[K]>[number]>[]> {
  const found: Found<NonNullable<SubjectModule[K]>[number]>[] = []
  for (const module of from) {
    const loaded: SubjectModule = await import(pathToFileURL(join(import.meta.dirname, module)).href)
    for (const subject of loaded[kind] ?? []) {
      if (wanted(subject, module, options)) found.push({ module, subject })
    }
  }
  return found
}

/** `ours` names our side; anything else is a part of a subject's name. */
function wanted({ name, optional }: { name: string; optional?: boolean }, module: string, options: Context['options']) {
  if (options.only.length === 0) return options.all || !optional
  return options.only.some((part) => (part === 'ours' ? module === 'ours.ts' : name.includes(part)))
}

export function drainCandidate(
  kind: DrainKind,
  found: Found<DrainSubject>,
  backlog: Backlog,
  context: Context,
): Candidate {
  const { module, subject } = found
  return {
    subject: subject.name,
    settings: subject.settings,
    async measure() {
      await using env = await context.servers.fresh(kind === 'effects' ? ['postgres', ...subject.needs] : subject.needs)
      const order = { module, subject: subject.name, kind, env: plain(env), backlog }
      await inChild({ ...order, step: 'prepare' }, context)
      if (env.databaseUrl) await settle(env.databaseUrl)
      const { ms, rssMb } = await inChild({ ...order, step: 'drain' }, context)
      if (kind === 'effects') await inspect(env.databaseUrl, backlog.jobs)
      return { perSecond: (backlog.jobs / ms) * 1_000, rssMb }
    },
  }
}

export function latencyCandidate(found: Found<LatencySubject>, samples: number, context: Context): Candidate {
  const { module, subject } = found
  return {
    subject: subject.name,
    settings: subject.settings,
    async measure() {
      await using env = await context.servers.fresh(subject.needs)
      const order = { module, subject: subject.name, env: plain(env), samples, step: 'latency' as const }
      const { deliveries, rssMb } = await inChild(order, context)
      const sinceSent = deliveries.map((delivery) => delivery.startedAt - delivery.sentAt)
      const sinceReturned = deliveries.map((delivery) => delivery.startedAt - delivery.returnedAt)
      return {
        p50Ms: percentile(sinceSent, 0.5),
        p99Ms: percentile(sinceSent, 0.99),
        returnedP50Ms: percentile(sinceReturned, 0.5),
        rssMb,
      }
    },
  }
}

export function emitCandidate(
  found: Found<EmitSubject>,
  how: { emit: boolean; concurrency: number; transactions: number },
  context: Context,
): Candidate {
  const { module, subject } = found
  return {
    subject: `${subject.name} ${how.emit ? 'with one emit' : 'without'}, ${how.concurrency} at a time`,
    settings: subject.settings,
    async measure() {
      await using env = await context.servers.fresh(subject.needs)
      const { ms, rssMb } = await inChild(
        { module, subject: subject.name, env: plain(env), step: 'emit', ...how },
        context,
      )
      return { perSecond: (how.transactions / ms) * 1_000, rssMb }
    },
  }
}

function plain({ databaseUrl, redis }: Order['env']): Order['env'] {
  return { databaseUrl, redis }
}

async function inChild(order: Order, { children, signal }: Context): Promise<Done> {
  signal.throwIfAborted()
  const child = fork(join(import.meta.dirname, 'child.ts'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  children.add(child)
  return new Promise((resolve, reject) => {
    child.once('message', (answer: Answer) => {
      if ('error' in answer) reject(new Error(answer.error))
      else resolve(answer)
    })
    child.once('exit', (code, signal) => {
      children.delete(child)
      reject(new Error(`the child of ${order.subject} ended with ${signal ?? code} before it answered`))
    })
    child.send(order)
  })
}
