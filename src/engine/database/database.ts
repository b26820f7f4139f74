import pg from 'pg'
import { isKerpError, KerpError } from '../../kernel/errors.ts'
import type { EventContext } from '../../kernel/trace.ts'
import type { Client } from './connection.ts'
import { connectionSettings, explainConnectFailure, isConnectionError, send, toQuery } from './connection.ts'
import type { Statement } from './sql.ts'
import { sql } from './sql.ts'
import type { Tx } from './transaction.ts'
import { openTxState, TxHandle } from './transaction.ts'

export interface DatabaseOptions {
  url: string
  /** Connections at most. */
  max?: number
  applicationName?: string
  /** How long to wait for a free connection. */
  acquireTimeoutMs?: number
  /** Called before a new attempt to reach a server that is away: the embedded one is started again here. */
  revive?: () => Promise<void>
  onError?: (error: Error) => void
}

export interface TransactionOptions {
  context?: EventContext
  isolation?: 'read committed' | 'repeatable read' | 'serializable'
  /** After this long it is rolled back and its connection closed, whatever it was doing. */
  deadlineMs?: number
  /** Errors after which the connection is not used again and its backend is ended: it may be stuck in a statement. */
  endsConnection?: (error: unknown) => boolean
  /** How often it is run again after a serialization failure or a deadlock. */
  retries?: number
}

export type EmittedListener = (eventTypes: ReadonlySet<string>) => void

export interface Database {
  readonly url: string
  sql<Row = Record<string, unknown>>(strings: TemplateStringsArray, ...values: unknown[]): Promise<Row[]>
  run<Row = Record<string, unknown>>(statement: Statement): Promise<Row[]>
  query(text: string, values?: unknown[]): Promise<{ rows: any[] }>
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>
  /** A connection of one's own, outside the pool: for LISTEN and for locks that last. */
  connect(): Promise<pg.Client>
  /** Hears of every transaction of this process that emitted something and has committed. */
  onEmitted(listener: EmittedListener): () => void
  readonly pool: { total: number; idle: number; waiting: number }
  close(): Promise<void>
}

/** Events emitted without a company of their own belong to this one. */
export const defaultContext: EventContext = { companyId: 'default' }

/** Half-open transactions of a frozen process are ended by the server, so that their row locks do not outlive it. */
const idleInTransactionMs = 60_000

const oldestVersion = 150_000

export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { url, max = 10, applicationName = 'kerp', acquireTimeoutMs = 10_000, onError = () => {} } = options
  const pool = new pg.Pool({
    ...connectionSettings(url, applicationName),
    max,
    connectionTimeoutMillis: acquireTimeoutMs,
    idle_in_transaction_session_timeout: idleInTransactionMs,
  })
  // An idle connection may break at any time; the pool replaces it, and without a listener Node would end the process.
  pool.on('error', onError)
  pool.on('connect', (client) => void client.on('error', onError))
  const listeners = new Set<EmittedListener>()

  async function acquire(): Promise<pg.PoolClient> {
    try {
      return await pool.connect()
    } catch (error) {
      throw await explain(error)
    }
  }

  async function explain(error: unknown): Promise<unknown> {
    if (pool.ended || isKerpError(error)) return error
    if (
      error instanceof Error &&
      /timeout exceeded when trying to connect/.test(error.message) &&
      pool.totalCount >= max
    ) {
      return new KerpError(
        'POOL_EXHAUSTED',
        `no database connection became free within ${acquireTimeoutMs} ms; all ${max} are in use`,
        {
          cause: error,
          hint: 'raise KERP_POOL, or look for handlers that hold a transaction for long',
        },
      )
    }
    await options.revive?.().catch(onError)
    return explainConnectFailure(error, url)
  }

  async function run<Row>(statement: Statement): Promise<Row[]> {
    return (await once(toQuery(statement))).rows as Row[]
  }

  async function once(query: pg.QueryConfig): Promise<pg.QueryResult> {
    const client = await acquire()
    let failure: unknown
    try {
      return await send(client, query)
    } catch (error) {
      failure = error
      throw error
    } finally {
      client.release(isConnectionError(failure) ? true : undefined)
    }
  }

  async function transaction<T>(work: (tx: Tx) => Promise<T>, given: TransactionOptions = {}): Promise<T> {
    const { retries = 3 } = given
    for (let attempt = 0; ; attempt++) {
      try {
        return await attemptTransaction(work, given)
      } catch (error) {
        if (attempt >= retries || !isConflict(error)) throw error
        await new Promise((resolve) => setTimeout(resolve, 2 ** attempt * 5 * (0.5 + Math.random())))
      }
    }
  }

  async function attemptTransaction<T>(work: (tx: Tx) => Promise<T>, given: TransactionOptions): Promise<T> {
    const client = await acquire()
    const state = openTxState(client)
    const tx = new TxHandle(state, given.context ?? defaultContext)
    const limit = given.deadlineMs === undefined ? undefined : startDeadline(tx, given.deadlineMs)
    // Unless it is known to be over, nobody may get this connection with what is left of the transaction in it.
    let over = false
    try {
      // Not awaited: it leaves together with the first statement of `work`.
      const begun = send(client, { text: given.isolation ? `begin isolation level ${given.isolation}` : 'begin' })
      begun.catch(() => {})
      const result = await (limit ? Promise.race([work(tx), limit.expired]) : work(tx))
      await begun
      tx.flush()
      tx.close('it has been committed')
      const { command } = await send(client, { text: 'commit' })
      over = true
      if (command === 'ROLLBACK') {
        throw new KerpError(
          'TRANSACTION_CLOSED',
          'nothing was committed: a statement had failed and its error was swallowed',
          {
            hint: 'let errors of queries through, or put the part that may fail into tx.transaction()',
          },
        )
      }
      if (state.emittedTypes.size) for (const listener of listeners) listener(state.emittedTypes)
      return result
    } catch (error) {
      tx.close('it has been rolled back')
      const stuck = limit?.hasExpired() === true || given.endsConnection?.(error) === true
      if (stuck) endBackend(client)
      else if (!over) over = await rollBack(client)
      throw error
    } finally {
      limit?.stop()
      client.release(over ? undefined : true)
    }
  }

  async function rollBack(client: pg.PoolClient): Promise<boolean> {
    return send(client, { text: 'rollback' }).then(
      () => true,
      () => false,
    )
  }

  /** Only this frees what a stuck statement has locked. */
  function endBackend(client: pg.PoolClient): void {
    const { processID } = client as unknown as Client
    void run(sql`select pg_terminate_backend(${processID})`).catch(onError)
  }

  function startDeadline(tx: TxHandle, deadlineMs: number) {
    const { promise: expired, reject } = Promise.withResolvers<never>()
    expired.catch(() => {})
    let over = false
    const timer = setTimeout(() => {
      over = true
      tx.close('its deadline has passed')
      reject(new KerpError('DEADLINE_EXCEEDED', `the transaction was not done within ${deadlineMs} ms`))
    }, deadlineMs)
    return { expired, hasExpired: () => over, stop: () => clearTimeout(timer) }
  }

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client(connectionSettings(url, applicationName))
    client.on('error', () => {})
    try {
      await client.connect()
      return client
    } catch (error) {
      throw await explain(error)
    }
  }

  const database: Database = {
    url,
    run,
    sql: (strings, ...values) => run(sql(strings, ...values)),
    query: (text, values) => once(values === undefined ? { text } : { text, values }),
    transaction,
    connect,
    onEmitted(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    get pool() {
      return { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }
    },
    close: () => pool.end(),
  }

  try {
    await refuseOldServer(database)
  } catch (error) {
    await pool.end()
    throw error
  }
  return database
}

async function refuseOldServer(database: Database): Promise<void> {
  const [row] = await database.sql<{ number: number; version: string }>`
    select current_setting('server_version_num')::int as number, current_setting('server_version') as version`
  if (row && row.number < oldestVersion) {
    throw new KerpError('DATABASE_TOO_OLD', `PostgreSQL ${row.version} is too old`, {
      hint: 'PostgreSQL 15 or newer is needed',
    })
  }
}

function isConflict(error: unknown): boolean {
  const code = (error as { code?: string } | undefined)?.code
  return code === '40001' || code === '40P01'
}
