import type { Duration } from '../../kernel/duration.ts'
import { milliseconds } from '../../kernel/duration.ts'
import { isKerpError } from '../../kernel/errors.ts'
import type { Settlement } from '../transport.ts'

/** The wait before the next attempt, after `attempt` of them have failed. */
export type RetryPolicy = (attempt: number) => number

/** 1s, 2s, 4s … up to `max`, each shortened by up to a quarter so that what failed together does not return together. */
export function exponential(first: Duration, { max = '5m' as Duration, random = Math.random } = {}): RetryPolicy {
  const firstMs = milliseconds(first)
  const maxMs = milliseconds(max)
  return (attempt) => Math.round(Math.min(maxMs, firstMs * 2 ** (attempt - 1)) * (1 - random() / 4))
}

export function fixed(wait: Duration): RetryPolicy {
  const ms = milliseconds(wait)
  return () => ms
}

export const defaultRetry: RetryPolicy = exponential('1s')
export const defaultAttempts = 10

class PermanentError extends Error {}
class NotNowError extends Error {
  readonly afterMs: number
  constructor(message: string, afterMs: number) {
    super(message)
    this.afterMs = afterMs
  }
}

/** To throw when trying again cannot help: the event goes to the dead letters at once. */
export function permanent(reason: string, cause?: unknown): Error {
  return new PermanentError(reason, cause === undefined ? undefined : { cause })
}

/** To throw when it is not the event's fault (a closed circuit, a quota): it waits and no attempt is spent. */
export function notNow(after: Duration, reason = 'not now'): Error {
  return new NotNowError(reason, milliseconds(after))
}

/** Whoever comes next may do it at once; a newer program may take longer to come. */
const notItsFault = { LEASE_LOST: 0, WORKER_STOPPING: 0, EVENT_TOO_NEW: 1000 } as const

/** The events themselves are wrong: another attempt would meet the same. */
const neverRight = ['EVENT_INVALID', 'EVENT_UNKNOWN', 'MESSAGE_UNREADABLE'] as const

/** What becomes of a message whose attempt ended in this error. */
export function judge(error: Error, attempt: number, attempts: number, retry: RetryPolicy): Settlement {
  if (error instanceof NotNowError) return { do: 'retry', afterMs: error.afterMs, blame: 'consumer', error }
  if (error instanceof PermanentError) return { do: 'dead', reason: 'permanent', error }
  for (const [code, afterMs] of Object.entries(notItsFault)) {
    if (isKerpError(error, code as keyof typeof notItsFault)) return { do: 'retry', afterMs, blame: 'consumer', error }
  }
  const wrong = neverRight.find((code) => isKerpError(error, code))
  if (wrong) return { do: 'dead', reason: wrong, error }
  if (attempt >= attempts) return { do: 'dead', reason: 'attempts', error }
  return { do: 'retry', afterMs: retry(attempt), blame: 'message', error }
}
