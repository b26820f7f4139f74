import { isConnectionError } from '../../engine/database/connection.ts'
import { toError } from '../../kernel/errors.ts'

/** How long a slot sleeps when it was told nothing: the backstop for a lost hint. */
const pollMs = 1000
const reconnectMs = 250
const overdueMs = 25

export interface SlotsOptions {
  /** Loops side by side, at most. */
  slots: number
  /** One batch; returns how many messages it took, and calls `more` as soon as it knows that there is likely more. */
  turn: (more: () => void) => Promise<number>
  /** When something that waits will be due, asked when there was nothing to do. */
  nextDueMs: () => Promise<number | null>
  onError: (error: Error) => void
}

/**
 * The loops that fetch. One is woken by a hint; as long as it finds full batches it wakes another, up to `slots`; a loop that
 * finds nothing sleeps until the next hint, the next due message or the poll.
 */
export function startSlots({ slots, turn, nextDueMs, onError }: SlotsOptions) {
  const running = new Set<Promise<void>>()
  let timer: NodeJS.Timeout | undefined
  let paused = false
  let stopped = false
  /** Counts the hints: one that came while a loop was looking may be about what it has just not found. */
  let hints = 0

  function wake(): void {
    if (paused || stopped) return
    clearTimeout(timer)
    more()
  }

  function more(): void {
    hints++
    if (running.size < slots && !paused && !stopped) start()
  }

  function start(): void {
    const loop = run().finally(() => {
      running.delete(loop)
      if (running.size < slots && !stopped && !paused) void sleepUntilNext()
    })
    running.add(loop)
  }

  async function run(): Promise<void> {
    while (!paused && !stopped) {
      const heard = hints
      try {
        const took = await turn(more)
        if (took === 0 && hints === heard) return
      } catch (thrown) {
        const error = toError(thrown)
        onError(error)
        await new Promise((resolve) => setTimeout(resolve, isConnectionError(error) ? reconnectMs : reconnectMs * 4))
      }
    }
  }

  async function sleepUntilNext(): Promise<void> {
    clearTimeout(timer)
    timer = setTimeout(wake, pollMs)
    const dueMs = await nextDueMs().catch((thrown) => (onError(toError(thrown)), null))
    if (dueMs === null || dueMs > pollMs || stopped) return
    clearTimeout(timer)
    // Due already, and yet not taken: somebody else has its lane, or it was left behind and is not asked for at every turn.
    timer = setTimeout(wake, dueMs > 0 ? dueMs + 1 : overdueMs)
  }

  wake()
  return {
    wake,
    pause: () => void (paused = true),
    resume() {
      paused = false
      wake()
    },
    /** Something has been put off: whoever sleeps may have to wake earlier. */
    replan(): void {
      if (running.size === 0 && !stopped && !paused) void sleepUntilNext()
    },
    /** Resolves when every loop has ended its batch. */
    async stop(): Promise<void> {
      stopped = true
      clearTimeout(timer)
      await Promise.all(running)
    },
  }
}

/** After its signal was aborted a handler has this long to give up; then it is left alone, and its message comes back by itself. */
const lastWordMs = 250

/** Waits for `work`, aborts it when the grace time is over, and does not let one that is deaf to that hold everything up. */
export async function endWithin(graceMs: number, work: Promise<unknown>, abort: () => void): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>()
  let timer = setTimeout(() => {
    abort()
    timer = setTimeout(resolve, lastWordMs)
  }, graceMs)
  await Promise.race([work, over])
  clearTimeout(timer)
}
