import { milliseconds } from '../../kernel/duration.ts'
import type { Clock } from '../../kernel/clock.ts'
import { isKerpError, KerpError, toError } from '../../kernel/errors.ts'
import { contextOf } from '../../kernel/trace.ts'
import { isConnectionError } from '../database/connection.ts'
import type { Tx, TxPart } from '../database/transaction.ts'
import type { Delivery } from '../transport.ts'
import { asHandler } from './exit-guard.ts'
import { GroupFailure } from './group.ts'
import type { Event, HandleSubscription } from './subscription.ts'

/** Every statement after a failed one ends with this: a victim, not the culprit. */
const transactionAborted = '25P02'

/**
 * Runs the handler for every message of a batch within one transaction. Messages of different keys run side by side, those of
 * one key one after the other. Most of the speed is here: their statements leave together, and there is one commit for all.
 */
export function applyBatch(
  subscription: HandleSubscription,
  clock: Clock,
): (batch: readonly Delivery[], tx: Tx) => Promise<void> {
  const { type, handle, order } = subscription
  const deadlineMs = milliseconds(subscription.deadline ?? '30s')

  return async (batch, tx) => {
    const suspects = new Map<Delivery, Error>()
    let victim: Error | undefined
    const running = new Set<Delivery>()
    const lanes = new Map<string, Promise<boolean> | false>()
    const pending: Promise<boolean>[] = []

    for (const delivery of batch) {
      const lane = order === 'in-turn' ? '' : delivery.envelope.key
      const before = lane === null ? undefined : lanes.get(lane)
      // After a failure in its lane a message does not run: it would be out of turn.
      if (before === false) continue
      const outcome = before
        ? before.then((ok) => ok && asHandler(() => run(delivery)))
        : asHandler(() => run(delivery))
      if (outcome === true) continue
      if (lane !== null) lanes.set(lane, outcome)
      if (outcome) pending.push(outcome)
    }
    if (pending.length) await withDeadline(Promise.all(pending))
    if (suspects.size) throw new GroupFailure(suspects)
    // Nobody is known to be to blame, but somebody has failed, and that must not be committed.
    if (victim) throw victim

    /** True when done at once, a promise when the handler awaits. */
    function run(delivery: Delivery): boolean | Promise<boolean> {
      const part = tx.in(contextOf(delivery.envelope))
      try {
        const result = handle(toEvent(type, delivery), part)
        if (!isPromise(result)) return end(delivery, part)
        running.add(delivery)
        return result.then(
          () => end(delivery, part),
          (thrown: unknown) => (end(delivery, part), blame(delivery, thrown)),
        )
      } catch (thrown) {
        part.end()
        return blame(delivery, thrown)
      }
    }

    /** What a forgotten branch of the handler still sends would land among the others' effects, or after its own were undone. */
    function end(delivery: Delivery, part: TxPart): true {
      part.end()
      running.delete(delivery)
      return true
    }

    function blame(delivery: Delivery, thrown: unknown): false {
      const error = toError(thrown)
      const isVictim =
        (error as { code?: string }).code === transactionAborted ||
        isKerpError(error, 'TRANSACTION_CLOSED') ||
        (isConnectionError(error) && !isKerpError(error))
      if (isVictim) victim ??= error
      else suspects.set(delivery, error)
      return false
    }

    async function withDeadline(all: Promise<unknown>): Promise<void> {
      const { promise: expired, resolve } = Promise.withResolvers<'expired'>()
      const cancel = clock.after(deadlineMs, () => resolve('expired'))
      const first = await Promise.race([all, expired])
      cancel()
      if (first !== 'expired') return
      for (const delivery of running) {
        suspects.set(
          delivery,
          new KerpError('DEADLINE_EXCEEDED', `${subscription.name} was not done within ${deadlineMs} ms`, {
            hint: 'what waits for the outside world belongs into `perform`',
          }),
        )
      }
      throw new GroupFailure(suspects, true)
    }
  }
}

export function toEvent(type: HandleSubscription['type'], { envelope, attempt }: Delivery): Event<unknown> {
  if (envelope.eventType !== type.name) {
    throw new KerpError('EVENT_UNKNOWN', `${envelope.eventType} arrived where ${type.name} is handled`)
  }
  return { ...envelope, data: type.decode(envelope.data, envelope.version), attempt }
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value
}
