import type { Duration } from '../../kernel/duration.ts'
import { KerpError } from '../../kernel/errors.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import type { DataOf, EventType } from '../../kernel/event.ts'
import type { Tx } from '../database/transaction.ts'
import type { RetryPolicy } from './retry.ts'

/** An event as its handler gets it: the data checked and of the current version. */
export interface Event<Data> extends Omit<Envelope, 'data'> {
  readonly data: Data
  readonly attempt: number
}

export interface CommonOptions {
  /** The consumer's name for good: its queue, its record of what it has done. */
  name: string
  /** How often it is tried before it goes to the dead letters. */
  attempts?: number
  retry?: RetryPolicy
  /** Messages of this consumer under way in one process. */
  inFlight?: number
}

export interface HandleOptions<Data> extends CommonOptions {
  /**
   * Effects in the database only, through `tx`: exactly once. Events of different keys share one transaction and take turns
   * at every `await`; events of one key come one after the other.
   */
  handle: (event: Event<Data>, tx: Tx) => unknown
  /**
   * 'by-key' (default): of one transaction's events those of different keys take turns at every `await`. 'in-turn': one after the
   * other, whatever their keys. Other transactions, here and elsewhere, may be at work on other keys all the same.
   */
  order?: 'by-key' | 'in-turn'
  /** For the whole batch's transaction. A handler that awaits the outside world belongs into `perform`. */
  deadline?: Duration
  /** Events of one transaction, at most. */
  batch?: number
  /** Transactions side by side in one process. */
  parallel?: number
}

export interface PerformOptions<Data, Result> extends CommonOptions {
  /** The outside call: may run again after a crash, so it passes on the key that makes it idempotent. */
  perform: (event: Event<Data>, call: { signal: AbortSignal; idempotencyKey: string }) => Promise<Result>
  /** The result's effect in the database: exactly once. The result is kept until this has committed. */
  commit?: (result: Result, tx: Tx, event: Event<Data>) => unknown
  /** How long a worker that has died keeps others from trying. A living one extends it. */
  lease?: Duration
  /** After this long the call's signal is aborted and the attempt has failed; the commit has as long. */
  deadline?: Duration
}

interface Declared {
  readonly type: EventType<any>
}

export type HandleSubscription = Declared & { readonly kind: 'handle' } & HandleOptions<any>
export type PerformSubscription = Declared & { readonly kind: 'perform' } & PerformOptions<any, any>
export type EventSubscription = HandleSubscription | PerformSubscription

export function on<Type extends EventType<any>>(type: Type, options: HandleOptions<DataOf<Type>>): HandleSubscription
export function on<Type extends EventType<any>, Result>(
  type: Type,
  options: PerformOptions<DataOf<Type>, Result>,
): PerformSubscription
export function on(type: EventType<any>, options: HandleOptions<any> | PerformOptions<any, any>): EventSubscription {
  if (!/^[a-z0-9][a-z0-9._-]*$/.test(options.name)) {
    throw new KerpError('SUBSCRIPTION_INVALID', `'${options.name}' is not a name for a consumer`, {
      hint: "use small letters, digits, dots and dashes, as in 'payroll.employee.created'",
    })
  }
  if ('handle' in options) return { kind: 'handle', type, ...options }
  return { kind: 'perform', type, ...options }
}
