import pg from 'pg'
import { KerpError } from '../../kernel/errors.ts'
import type { Statement } from './sql.ts'

/** What `emit` and the stores need of a transaction: any client's fits, with one line of adapter at most. */
export interface Queryable {
  query(text: string, values?: unknown[]): Promise<{ rows: any[] }>
}

/** A `pg` connection that may be sent several statements before the first is answered. */
export type Client = pg.Client & { connection: { stream: import('node:net').Socket }; processID: number }

const int8 = 20

/** bigint columns are amounts of won and row numbers: exact, so never a string and never a float. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === int8) return BigInt
    return pg.types.getTypeParser(oid, format as 'text')
  },
}

export function connectionSettings(url: string, applicationName: string): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: applicationName,
    pipeline: true,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    types,
  } as pg.ClientConfig
}

const corked = new WeakSet<object>()

/**
 * Sends one statement. What is sent within one turn of the event loop leaves in one packet: `pg` would write every statement
 * by itself, and a batch of small statements would spend its time in the kernel.
 */
export function send(
  client: pg.ClientBase,
  statement: pg.QueryConfig & { rowMode?: 'array' },
): Promise<pg.QueryResult<any>> {
  const { stream } = (client as Client).connection
  if (!corked.has(stream)) {
    corked.add(stream)
    stream.cork()
    process.nextTick(() => {
      corked.delete(stream)
      stream.uncork()
    })
  }
  const result = client.query(statement)
  result.catch(noteIfLost)
  return result
}

export function toQuery(statement: Statement): pg.QueryConfig {
  return { text: statement.text, values: statement.values as unknown[], name: statement.name }
}

const unreachable = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOTFOUND',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'EPIPE',
  'EAI_AGAIN',
  'ENOENT',
  '57P01',
  '57P02',
  '57P03',
  '53300',
  '08006',
  '08003',
  '08001',
  '25P03',
])
const lostWords =
  /Connection terminated|Client has encountered a connection error|Client was closed|timeout expired|not queryable/

const lost = new WeakSet<Error>()

/** Remembers an error of a connection of ours, so that it is not mistaken for one that a handler met elsewhere. */
export function markLost<E extends Error>(error: E): E {
  lost.add(error)
  return error
}

/** True for failures of our own connection, which say nothing about the statement: the server is away, restarting or full. */
export function isConnectionError(error: unknown): boolean {
  return error instanceof Error && lost.has(error)
}

function noteIfLost(error: unknown): void {
  if (!(error instanceof Error)) return
  const { code } = error as { code?: string }
  if ((code !== undefined && unreachable.has(code)) || lostWords.test(error.message)) markLost(error)
}

/** The reason why a connection could not be made, in words that say what to do. */
export function explainConnectFailure(cause: unknown, url: string): KerpError {
  const { code, message } = cause as { code?: string; message: string }
  const where = safeUrl(url)
  const hint =
    code === '28P01' || code === '28000'
      ? 'check the user and password in DATABASE_URL'
      : code === '3D000'
        ? 'create the database first, or correct its name in DATABASE_URL'
        : code === '53300'
          ? 'the server has no connection left: raise its max_connections or lower KERP_POOL'
          : code === 'ENOTFOUND' || code === 'EAI_AGAIN'
            ? 'check the host name in DATABASE_URL'
            : 'check that PostgreSQL runs there and that DATABASE_URL is right; without DATABASE_URL the embedded PostgreSQL is used'
  return markLost(
    new KerpError('DATABASE_UNREACHABLE', `cannot connect to ${where}: ${message || code}`, { cause, hint }),
  )
}

/** The URL without its password. */
export function safeUrl(url: string): string {
  try {
    const parsed = new URL(url)
    if (parsed.password) parsed.password = '***'
    return parsed.toString()
  } catch {
    return 'the given DATABASE_URL'
  }
}
