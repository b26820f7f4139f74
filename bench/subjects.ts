/** What a benchmark measures. A subject's steps run in processes of their own (child.ts): nobody inherits a warm JIT. */

export interface Environment {
  /** A fresh database of the private PostgreSQL, dropped after the run. */
  databaseUrl: string
  /** The private Redis, emptied before the run; port 0 when no subject needs it. */
  redis: { host: string; port: number }
}

export interface Backlog {
  jobs: number
  /** Over how many different keys the jobs are spread: `job(n, keys).key`. */
  keys: number
}

interface Subject {
  name: string
  /** The settings that matter, in a few words for the table. */
  settings: string
  needs: readonly ('postgres' | 'redis')[]
  /** Measured only with --all or when named by --only: slow, or there for completeness. */
  optional?: boolean
  close(): Promise<void>
}

/** A backlog put in place and worked off. `prepare` and `drain` run in two different processes. */
export interface DrainSubject extends Subject {
  /** Installs the schema and enqueues `job(0) … job(jobs - 1)`; not timed. */
  prepare(env: Environment, backlog: Backlog): Promise<void>
  /** Milliseconds from telling the workers to start (connections may be open by then) until the store is drained. */
  drain(env: Environment, backlog: Backlog): Promise<number>
}

/** Readings of one clock, `performance.now()` of the process that commits and handles. */
export interface Delivery {
  /** Just before the commit was sent. */
  sentAt: number
  /** When the commit had returned to its caller. */
  returnedAt: number
  /** When the handler began. */
  startedAt: number
}

export interface LatencySubject extends Subject {
  start(env: Environment): Promise<void>
  /** Commits job n alone on an idle queue; resolves when its handler began. */
  deliver(n: number): Promise<Delivery>
}

/** Business transactions (one row into bench_business) with one emit each, and the same without. */
export interface EmitSubject extends Subject {
  /** Called once before the transactions: schema, pool of `concurrency` connections. */
  start(env: Environment, concurrency: number): Promise<void>
  transaction(n: number, emit: boolean): Promise<void>
}

/** What a subject module (ours.ts, peers/*.ts) may export; each kind is one benchmark's list. */
export interface SubjectModule {
  drain?: DrainSubject[]
  effects?: DrainSubject[]
  latency?: LatencySubject[]
  emit?: EmitSubject[]
  /** Two entries to compare: the relay's drain of outbox rows, and the transport's own windowed publish of as many. */
  relay?: DrainSubject[]
}

export type Kind = keyof SubjectModule

/** Tables of the benchmark itself, in every fresh database: effects and business rows go here, whoever writes them. */
export const benchTables = `
  create table bench_effects (id bigint generated always as identity primary key, event_id uuid not null,
    employee_id text not null, name text not null, annual_salary bigint not null);
  create table bench_processed (consumer text not null, event_id uuid not null, primary key (consumer, event_id));
  create table bench_business (id bigint generated always as identity primary key, employee_id text not null,
    name text not null, annual_salary bigint not null);
`
