import { on } from '../../src/engine/worker/subscription.ts'
import type { Engine } from './engine.ts'
import { Asked, openEngine } from './engine.ts'
import type { Process } from './processes.ts'
import { startProcess } from './processes.ts'

const script = new URL('./actor-process.ts', import.meta.url).pathname

export type Stage = Engine & { readonly consumers: readonly string[] }

/** A database that knows the consumers of actor-process.ts, and on which nobody works yet. */
export async function openStage(...consumers: string[]): Promise<Stage> {
  const stage = await openEngine(
    consumers.map((name) => on(Asked, { name, handle: () => {} })),
    { declaredOnly: true },
  )
  await stage.database.query(
    `create table calls (place bigint generated always as identity, number int not null, idempotency_key uuid not null)`,
  )
  return Object.assign(stage, { consumers })
}

/** Another process that works on it, and is ready to. */
export async function startActor({ url, consumers }: Stage): Promise<Process> {
  const actor = startProcess(script, consumers, { DATABASE_URL: url, KERP_POOL: '5', LOG_LEVEL: 'warn' })
  await actor.says(/kerp is ready/)
  return actor
}

export interface Call {
  readonly number: number
  readonly key: string
}

export function readCalls({ database }: Stage): Promise<Call[]> {
  return database.sql<Call>`select number, idempotency_key as key from calls order by place`
}
