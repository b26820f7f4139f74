import type { Clock } from '../kernel/clock.ts'
import { sleep, systemClock } from '../kernel/clock.ts'
import { KerpError, toError } from '../kernel/errors.ts'

export interface WaitOptions {
  timeoutMs?: number
  everyMs?: number
  /** What is waited for, as a sentence for whoever reads the failure; may look at how far it got. */
  what?: string | (() => string)
  clock?: Clock
}

/**
 * Asks until the answer is neither false nor undefined, and returns it. For tests: they wait for what they need, never for a
 * time that is usually enough. A condition that throws has not come true yet; its last error is told when the time is over.
 */
export async function waitFor<Answer>(
  condition: () => Answer | Promise<Answer>,
  { timeoutMs = 10_000, everyMs = 5, what = 'the condition', clock = systemClock }: WaitOptions = {},
): Promise<Exclude<Answer, false | undefined>> {
  const end = clock.monotonic() + timeoutMs
  for (;;) {
    let cause: Error | undefined
    try {
      const answer = await condition()
      if (answer !== false && answer !== undefined) return answer as Exclude<Answer, false | undefined>
    } catch (error) {
      cause = toError(error)
    }
    if (clock.monotonic() >= end) throw timedOut(timeoutMs, typeof what === 'string' ? what : what(), cause)
    await sleep(clock, everyMs)
  }
}

function timedOut(timeoutMs: number, what: string, cause: Error | undefined): KerpError {
  const why = cause ? `: ${cause.message}` : ''
  return new KerpError('DEADLINE_EXCEEDED', `not within ${timeoutMs} ms: ${what}${why}`, cause ? { cause } : {})
}
