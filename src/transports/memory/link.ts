import type { MemoryBroker } from './broker.ts'

/** The way from one transport to the broker: down while the broker is, or while a test has cut it. */
export interface Link {
  isUp(): boolean
  /** Resolves when it is up; also when it never will be again, so look once more. */
  whenUp(): Promise<void>
  /** Calls `listener` each time it comes up again; the returned function ends that. */
  onUp(listener: () => void): () => void
  cut(): void
  restore(): void
  /** Down for good. */
  end(): void
}

export function createLink(broker: MemoryBroker): Link {
  const listeners = new Set<() => void>()
  let waiting: (() => void)[] = []
  let state: 'connected' | 'cut' | 'ended' = 'connected'
  const unwatch = broker.watch(changed)

  const isUp = () => state === 'connected' && broker.running

  function changed(): void {
    if (isUp()) for (const listener of listeners) listener()
    if (!isUp() && state !== 'ended') return
    const woken = waiting
    waiting = []
    for (const wake of woken) wake()
  }

  return {
    isUp,
    whenUp: () => (isUp() || state === 'ended' ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    onUp(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    cut() {
      if (state === 'connected') state = 'cut'
    },
    restore() {
      if (state === 'cut') state = 'connected'
      changed()
    },
    end() {
      state = 'ended'
      unwatch()
      changed()
    },
  }
}
