import { isConnectionError } from '../database/connection.ts'
import type { Tx } from '../database/transaction.ts'
import type { TransactionOptions } from '../database/database.ts'
import type { Inbox } from '../inbox/store.ts'
import type { Delivery, HandleBatch, Settlement } from '../transport.ts'
import { isKerpError, toError } from '../../kernel/errors.ts'
import { GroupFailure, settleGroup } from './group.ts'

/** What a worker needs of the database: the simulator brings one of its own. */
export interface Transactions {
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>
}

export interface HandleParts {
  database: Transactions
  inbox: Inbox
  now: () => number
  apply: (batch: readonly Delivery[], tx: Tx) => Promise<void>
  judge: (delivery: Delivery, error: Error) => Settlement
  done: (fresh: readonly Delivery[], duplicates: number, startedAt: number) => void
}

/** While the database is away nothing is anybody's fault; the messages wait at the broker. */
export const databaseAwayMs = 1000

/**
 * Effects once on a transport that delivers at least once: one transaction for the whole batch, which first records in the inbox
 * what is new, then runs the handlers for that. Acknowledged is only what has committed.
 */
export function handleWithInbox({ database, inbox, now, apply, judge, done }: HandleParts): HandleBatch {
  return async (batch) => {
    const settlements = new Map<Delivery, Settlement>()
    try {
      await settleGroup({
        batch,
        attempt,
        judge,
        settle: (delivery, settlement) => void settlements.set(delivery, settlement),
      })
    } catch (thrown) {
      const error = toError(thrown)
      if (!isConnectionError(error) && !isKerpError(error, 'POOL_EXHAUSTED')) throw error
      for (const delivery of batch) {
        if (!settlements.has(delivery))
          settlements.set(delivery, { do: 'retry', afterMs: databaseAwayMs, blame: 'consumer', error })
      }
    }
    return batch.map((delivery) => settlements.get(delivery)!)
  }

  async function attempt(part: readonly Delivery[]): Promise<void> {
    const startedAt = now()
    const fresh = await database.transaction(
      async (tx) => {
        const isNew = await inbox.remember(
          tx,
          part.map(({ envelope }) => envelope.eventId),
        )
        // Of two copies in one batch the first is the one.
        const first = part.filter(({ envelope }) => isNew.delete(envelope.eventId))
        if (first.length === 0) return first
        await apply(first, tx)
        void inbox.receipt(tx, first, startedAt)
        return first
      },
      { retries: 2, endsConnection: (failure) => failure instanceof GroupFailure && failure.timedOut },
    )
    done(fresh, part.length - fresh.length, startedAt)
  }
}
