import { isConnectionError } from '../database/connection.ts'
import type { Delivery, Settlement } from '../transport.ts'
import { isKerpError, toError } from '../../kernel/errors.ts'

/** A group's transaction failed, and these are the messages whose handlers failed of their own. */
export class GroupFailure extends Error {
  readonly suspects: ReadonlyMap<Delivery, Error>
  /** Some were still running at the deadline: their connection may be stuck in a statement of theirs. */
  readonly timedOut: boolean

  constructor(suspects: ReadonlyMap<Delivery, Error>, timedOut = false) {
    const [first] = suspects.values()
    super(`${suspects.size} of a group failed: ${first?.message}`, { cause: first })
    this.suspects = suspects
    this.timedOut = timedOut
  }
}

export interface GroupOptions {
  batch: readonly Delivery[]
  /** Carries these out in one transaction, all or none; may return some that it found in somebody else's hands and left alone. */
  attempt: (batch: readonly Delivery[]) => Promise<readonly Delivery[] | void>
  /** What becomes of one that failed by itself. */
  judge: (delivery: Delivery, error: Error) => Settlement
  /** Called as soon as it is known, so that a failing one is out of everyone's way. */
  settle: (delivery: Delivery, settlement: Settlement) => Promise<void> | void
  /** After such a failure there is no going on here: it is thrown on, and blames nobody. A lost connection is always one. */
  fatal?: (failure: unknown) => boolean
}

/**
 * Carries a batch out together; when that fails, finds out who is to blame. Those whose handlers failed, and what shares a key with
 * them, run one by one; all others once more together. Where nobody is known (the commit itself failed), halves are tried. So a
 * poison message costs its neighbours a moment and nothing else.
 */
export async function settleGroup(options: GroupOptions, firstFailure?: unknown): Promise<void> {
  const { batch, attempt, judge, settle, fatal = () => false } = options
  /** Keys with an event that has to be tried again: their later events must wait for it. */
  const heldBack = new Set<string>()

  if (firstFailure === undefined) await run(batch)
  else await divide(batch, firstFailure)

  async function run(part: readonly Delivery[]): Promise<void> {
    const free = heldBack.size === 0 ? part : part.filter((delivery) => !held(delivery))
    if (free.length < part.length) {
      for (const delivery of part) if (held(delivery)) await holdBack(delivery)
    }
    if (free.length === 0) return
    let elsewhere: readonly Delivery[]
    try {
      elsewhere = (await attempt(free)) ?? []
    } catch (failure) {
      return divide(free, failure)
    }
    const left = new Set(elsewhere)
    for (const delivery of free) {
      if (!left.has(delivery)) await settle(delivery, { do: 'ack' })
      else await holdBack(delivery)
    }
  }

  async function divide(part: readonly Delivery[], failure: unknown): Promise<void> {
    // The group's own transaction could not even begin.
    const noConnection = isConnectionError(failure) || isKerpError(failure, 'POOL_EXHAUSTED')
    if (noConnection || fatal(failure)) throw failure
    const suspects = failure instanceof GroupFailure ? failure.suspects : new Map<Delivery, Error>()
    if (part.length === 1) return fail(part[0]!, suspects.get(part[0]!) ?? toError(failure))
    const keys = new Set([...suspects.keys()].map(({ envelope }) => envelope.key).filter((key) => key !== null))
    const calm = part.filter(
      (delivery) => !suspects.has(delivery) && !(delivery.envelope.key !== null && keys.has(delivery.envelope.key)),
    )
    if (calm.length === part.length) {
      const half = part.length >> 1
      await run(part.slice(0, half))
      return run(part.slice(half))
    }
    if (calm.length) await run(calm)
    const done = new Set(calm)
    for (const delivery of part) {
      if (done.has(delivery)) continue
      const error = suspects.get(delivery)
      // It alone was still running: a second time would only cost its neighbours another deadline.
      const stuck = suspects.size === 1 && error !== undefined && isKerpError(error, 'DEADLINE_EXCEEDED')
      if (stuck && !held(delivery)) await fail(delivery, error)
      else await run([delivery])
    }
  }

  async function holdBack(delivery: Delivery): Promise<void> {
    if (delivery.envelope.key !== null) heldBack.add(delivery.envelope.key)
    await settle(delivery, { do: 'retry', afterMs: 0, blame: 'consumer' })
  }

  function held({ envelope: { key } }: Delivery): boolean {
    return key !== null && heldBack.has(key)
  }

  async function fail(delivery: Delivery, error: Error): Promise<void> {
    const settlement = judge(delivery, error)
    // Also behind a dead one: only when its letter is written may what follows it go on.
    if (delivery.envelope.key !== null) heldBack.add(delivery.envelope.key)
    await settle(delivery, settlement)
  }
}
