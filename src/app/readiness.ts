import type { Database } from '../engine/database/database.ts'
import type { Clock } from '../kernel/clock.ts'
import { sleep } from '../kernel/clock.ts'
import { errorCodes, isKerpError } from '../kernel/errors.ts'

export interface NotReady {
  readonly path: string
  readonly message: string
}

const answerWithinMs = 2_000

/** Whether this process can do its work: what is missing, or nothing. */
export function createReadiness({ database, clock }: { database: Database; clock: Clock }) {
  let state: 'starting' | 'running' | 'stopping' = 'starting'
  let asking: Promise<string | undefined> | undefined

  async function ask(): Promise<string | undefined> {
    const over = new AbortController()
    try {
      const answer = database.sql`select 1`.then(
        () => undefined,
        (error: unknown) => (isKerpError(error) ? errorCodes[error.code] : 'it answers with an error'),
      )
      const late = sleep(clock, answerWithinMs, over.signal).then(() => `no answer within ${answerWithinMs / 1000} s`)
      return await Promise.race([answer, late])
    } finally {
      over.abort()
    }
  }

  return {
    running: () => void (state = 'running'),
    stopping: () => void (state = 'stopping'),
    async missing(): Promise<NotReady[]> {
      // Many who ask at once cost one query: probes must not use up the pool of a server in trouble.
      const trouble = await (asking ??= ask().finally(() => (asking = undefined)))
      return [
        ...(trouble === undefined ? [] : [{ path: 'database', message: trouble }]),
        ...(state === 'running' ? [] : [{ path: 'process', message: `it is ${state}` }]),
      ]
    },
  }
}

export type Readiness = ReturnType<typeof createReadiness>
