/**
 * Every error the product raises on purpose has one of these codes, so that code can decide on it, a person can look it
 * up, and its wording can change. The value says what it means.
 */
export const errorCodes = {
  CONFIG_INVALID: 'a setting is missing or cannot be used',
  INPUT_INVALID: 'the input does not fit its schema',
  NOT_FOUND: 'there is nothing with that id',
  CONFLICT: 'it contradicts what is already there',
  EVENT_UNKNOWN: 'no such event type is declared',
  EVENT_INVALID: 'the data of an event does not fit its schema',
  EVENT_TOO_NEW: 'an event is of a version that this program does not know yet',
  EVENT_TOO_LARGE: 'an event is larger than the transport carries',
  EVENT_UNROUTABLE: 'nobody is subscribed to that event type',
  MESSAGE_UNREADABLE: 'a message on the broker is not an event',
  DATABASE_UNREACHABLE: 'Postgres cannot be reached',
  DATABASE_TOO_OLD: 'Postgres is older than what is supported',
  POOL_EXHAUSTED: 'no database connection became free in time',
  TRANSACTION_CLOSED: 'a query on a transaction that is already over',
  DEADLINE_EXCEEDED: 'it took longer than it was given',
  MIGRATION_CHANGED: 'a migration was edited after it ran',
  MIGRATION_MISSING: 'the database is ahead of this version',
  MIGRATION_FAILED: 'a migration could not be run',
  EMBEDDED_UNAVAILABLE: 'the embedded PostgreSQL cannot run here',
  DATA_DIR_UNUSABLE: 'the data folder cannot be used',
  PORT_IN_USE: 'another program listens on that port',
  SUBSCRIPTION_INVALID: 'a subscription contradicts itself or another one',
  TOPOLOGY_DRIFT: 'the broker is set up differently from what the code declares',
  WORKER_STOPPING: 'the worker stops before the message was done',
  LEASE_LOST: 'somebody else may be working on this message now',
  HANDLER_FAILED: 'a handler threw something that is not an error',
  HANDLER_EXITED: 'a handler tried to end the process',
  HANDLER_CRASHED: 'the process died while it worked on this message, too often',
  TRANSPORT_CLOSED: 'the transport is closed',
  TRANSPORT_FAILED: 'the transport could not do what was asked',
} as const

export type ErrorCode = keyof typeof errorCodes

export interface ErrorExtras {
  cause?: unknown
  /** What the reader can do about it. */
  hint?: string
  details?: unknown
}

export class KerpError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly details: unknown

  constructor(code: ErrorCode, message: string, extras: ErrorExtras = {}) {
    super(message, 'cause' in extras ? { cause: extras.cause } : undefined)
    this.name = 'KerpError'
    this.code = code
    this.hint = extras.hint
    this.details = extras.details
  }
}

export function isKerpError(error: unknown, code?: ErrorCode): error is KerpError {
  return error instanceof KerpError && (code === undefined || error.code === code)
}

/** Handlers may throw anything; whoever reads the failure needs an Error. */
export function toError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown
  return new KerpError('HANDLER_FAILED', `thrown: ${inWords(thrown)}`, { cause: thrown })
}

function inWords(thrown: unknown): string {
  try {
    return String(thrown)
  } catch {
    return 'something that cannot be written as text'
  }
}

export function messageOf(thrown: unknown): string {
  const error = toError(thrown)
  return error.message || error.name
}
