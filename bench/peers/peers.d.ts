// What the benchmarks use of each peer. The peers are installed under bench/ on first use only; with these declarations
// the type check says the same before and after.

declare module 'graphile-worker' {
  import type { Pool, PoolClient } from 'pg'

  interface Helpers {
    withPgClient<T>(callback: (client: PoolClient) => Promise<T>): Promise<T>
  }
  interface Options {
    pgPool: Pool
    preset?: { worker: Record<string, unknown> }
    concurrency?: number
    noHandleSignals?: boolean
    parsedCronItems?: []
    logger?: Logger
    taskList?: Record<string, (payload: unknown, helpers: Helpers) => void | Promise<void>>
  }
  export class Logger {
    constructor(factory: () => (level: string, message: string) => void)
  }
  export function runMigrations(options: Options): Promise<void>
  export function run(options: Options): Promise<{ stop(): Promise<void> }>
}

declare module 'pg-boss' {
  interface Database {
    executeSql(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>
  }
  interface BossJob {
    id: string
    data: unknown
  }
  /** The database is there when the worker is transactional: what it runs commits with the batch. */
  type Handler = (jobs: BossJob[], transaction: Database) => Promise<void>
  export class PgBoss {
    constructor(options: Record<string, unknown>)
    on(event: 'error' | 'warning', listener: (detail: unknown) => void): this
    start(): Promise<this>
    stop(options?: { graceful?: boolean; close?: boolean }): Promise<void>
    createQueue(name: string, options?: Record<string, unknown>): Promise<void>
    insert(name: string, jobs: { data: object }[]): Promise<unknown>
    send(name: string, data: object, options?: { db?: Database }): Promise<string | null>
    work(name: string, options: Record<string, unknown>, handler: Handler): Promise<string>
  }
}

declare module 'bullmq' {
  type Connection = import('ioredis').Redis | { host: string; port: number; maxRetriesPerRequest?: null }

  export class Queue {
    constructor(name: string, options: { connection: Connection; defaultJobOptions?: Record<string, unknown> })
    waitUntilReady(): Promise<unknown>
    add(name: string, data: unknown): Promise<unknown>
    addBulk(jobs: { name: string; data: unknown }[]): Promise<unknown>
    getJobCounts(...states: string[]): Promise<Record<string, number>>
    close(): Promise<void>
  }
  export class Worker {
    constructor(
      name: string,
      handler: (job: { data: unknown }) => Promise<void>,
      options: {
        connection: Connection
        concurrency?: number
        autorun?: boolean
        removeOnComplete?: { count: number }
      },
    )
    on(event: 'error', listener: (error: Error) => void): this
    waitUntilReady(): Promise<unknown>
    run(): Promise<void>
    close(force?: boolean): Promise<void>
  }
}

declare module 'ioredis' {
  export class Redis {
    constructor(options: { host: string; port: number })
    flushall(): Promise<unknown>
    info(section: string): Promise<string>
    quit(): Promise<unknown>
  }
}
