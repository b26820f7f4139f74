import type { Clock } from '../../kernel/clock.ts'
import { milliseconds } from '../../kernel/duration.ts'
import { KerpError, messageOf, toError } from '../../kernel/errors.ts'
import type { Tx } from '../database/transaction.ts'
import type { Delivery, HandleBatch, Settlement } from '../transport.ts'
import { applyBatch, toEvent } from './apply.ts'
import { databaseAwayMs } from './handle.ts'
import { asHandler } from './exit-guard.ts'
import { notNow, permanent } from './retry.ts'
import type { Event, PerformSubscription } from './subscription.ts'

/** Keeps what an outside call answered until its effect has committed. */
export interface KeptResults {
  /** What is kept of these, and which of them are done altogether: a copy of those needs no call. */
  find(eventIds: readonly string[]): Promise<{ answers: ReadonlyMap<string, unknown>; done: ReadonlySet<string> }>
  keep(eventId: string, result: unknown): Promise<void>
  drop(tx: Tx, eventIds: readonly string[]): Promise<unknown>
}

export interface PerformParts {
  subscription: PerformSubscription
  clock: Clock
  results: KeptResults
  /** Commits finished ones exactly once: the inbox's path, whose handler is the second half. */
  commit: (deliveries: readonly Delivery[]) => Promise<Settlement[]>
  judge: (delivery: Delivery, error: Error) => Settlement
  /** Where the second half finds what the first has brought. */
  answers: Map<Delivery, unknown>
}

/**
 * Two halves: `perform` calls the outside, once more after a crash, always with the same idempotency key; `commit` makes the
 * effect exactly once. Calls run side by side, those of one key in order; what is finished meanwhile commits together.
 */
export function performThenCommit({ subscription, clock, results, commit, judge, answers }: PerformParts): HandleBatch {
  const { type, perform } = subscription
  const deadlineMs = subscription.deadline === undefined ? undefined : milliseconds(subscription.deadline)
  const commitTogether = gather(commit)

  return async (batch) => {
    let kept: Kept
    try {
      kept = await results.find(batch.map(({ envelope }) => envelope.eventId))
    } catch (thrown) {
      // The database is away, whatever the reason: nobody's message is to blame.
      const error = toError(thrown)
      return batch.map(() => ({ do: 'retry', afterMs: databaseAwayMs, blame: 'consumer', error }))
    }
    const lanes = new Map<string, Promise<Settlement>>()
    return Promise.all(
      batch.map((delivery) => {
        const { key } = delivery.envelope
        const before = key === null ? undefined : lanes.get(key)
        const settled = before
          ? before.then((earlier) => (earlier.do === 'ack' ? one(delivery, kept) : heldBack))
          : one(delivery, kept)
        if (key !== null) lanes.set(key, settled)
        return settled
      }),
    )
  }

  async function one(delivery: Delivery, { answers: kept, done }: Kept): Promise<Settlement> {
    const { eventId } = delivery.envelope
    if (done.has(eventId)) return { do: 'ack' }
    try {
      const event = toEvent(type, delivery)
      const answer = kept.has(eventId) ? kept.get(eventId) : await callAndKeep(event, delivery)
      // Nothing may be said any more about what may be with somebody else.
      if (delivery.signal.aborted) throw toError(delivery.signal.reason)
      answers.set(delivery, fromKept(answer))
    } catch (thrown) {
      return judge(delivery, toError(thrown))
    }
    return commitTogether(delivery).finally(() => answers.delete(delivery))
  }

  async function callAndKeep(event: Event<unknown>, { signal }: Delivery): Promise<unknown> {
    const limit = new AbortController()
    const expired = Promise.withResolvers<never>()
    const stop = (reason: unknown) => {
      // First what we know, or the call's own words about being aborted would be taken for its failure.
      expired.reject(reason)
      limit.abort(reason)
    }
    expired.promise.catch(() => {})
    const cancel = deadlineMs === undefined ? () => {} : clock.after(deadlineMs, () => stop(late()))
    const onAbort = () => stop(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      const call = asHandler(() => perform(event, { signal: limit.signal, idempotencyKey: event.eventId }))
      const answer = toKept(await Promise.race([call, expired.promise]))
      // The answer is there; that it could not be written down is not the event's fault.
      await results.keep(event.eventId, answer).catch((cause: unknown) => {
        throw notNow('1s', `the answer could not be kept: ${messageOf(cause)}`)
      })
      return answer
    } finally {
      cancel()
      signal.removeEventListener('abort', onAbort)
    }
  }

  function late(): KerpError {
    return new KerpError('DEADLINE_EXCEEDED', `${subscription.name} was not done within ${deadlineMs} ms`)
  }
}

type Kept = Awaited<ReturnType<KeptResults['find']>>

const heldBack: Settlement = { do: 'retry', afterMs: 0, blame: 'consumer' }

/** The second half as a handler of the group commit, with all that this brings: lanes, deadline, blame. */
export function commitHalf(
  { type, name, deadline = '30s', commit = () => {} }: PerformSubscription,
  { clock, results, answers }: Pick<PerformParts, 'clock' | 'results' | 'answers'>,
) {
  return async (batch: readonly Delivery[], tx: Tx): Promise<void> => {
    const answerOf = new Map(batch.map((delivery) => [delivery.envelope.eventId, answers.get(delivery)]))
    const handle = (event: Event<unknown>, part: Tx) => commit(answerOf.get(event.eventId), part, event)
    void results.drop(tx, [...answerOf.keys()])
    await applyBatch({ kind: 'handle', type, name, deadline, handle }, clock)(batch, tx)
  }
}

/**
 * What is kept is JSON, and `commit` always gets what came back from it, so that it sees the same at its first try and at a later one.
 * An amount of won, a bigint, comes back as one.
 */
function toKept(answer: unknown): unknown {
  if (answer === undefined) return undefined
  try {
    return JSON.parse(
      JSON.stringify(answer, (_, value: unknown) => (typeof value === 'bigint' ? { $bigint: String(value) } : value)),
    )
  } catch (cause) {
    throw permanent(`the answer of the call cannot be kept: ${messageOf(cause)}`, cause)
  }
}

function fromKept(kept: unknown): unknown {
  if (kept === undefined) return undefined
  return JSON.parse(JSON.stringify(kept), (_, value: unknown) => {
    const big = (value as { $bigint?: string } | null)?.$bigint
    return big === undefined ? value : BigInt(big)
  })
}

/** One batch is under way at a time; what arrives meanwhile goes with the next. */
function gather(
  commit: (batch: readonly Delivery[]) => Promise<Settlement[]>,
): (delivery: Delivery) => Promise<Settlement> {
  let waiting: { delivery: Delivery; resolve: (settlement: Settlement) => void; reject: (error: unknown) => void }[] =
    []
  let busy = false

  async function work(): Promise<void> {
    busy = true
    while (waiting.length) {
      const batch = waiting
      waiting = []
      try {
        const settlements = await commit(batch.map(({ delivery }) => delivery))
        batch.forEach(({ resolve }, index) => resolve(settlements[index]!))
      } catch (error) {
        batch.forEach(({ reject }) => reject(error))
      }
    }
    busy = false
  }

  return (delivery) =>
    new Promise((resolve, reject) => {
      waiting.push({ delivery, resolve, reject })
      if (!busy) void work()
    })
}
