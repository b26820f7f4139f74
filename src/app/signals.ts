import { toError } from '../kernel/errors.ts'
import type { Log } from './log.ts'

export interface Signals {
  readonly stop: AbortSignal
  /** Resolves when it is time to stop. */
  readonly told: Promise<void>
  exitCode(): number
}

/** Ctrl-C, a service manager, or an error nobody caught: the first asks for an orderly end, a second ends at once. */
export function followSignals(log: Log): Signals {
  const stopping = new AbortController()
  let exitCode = 0

  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      // The terminal's Ctrl-C reaches us directly and again through npm, all at once: that is one wish, not two.
      if (stopping.signal.aborted && performance.now() - toldAt < 100) return
      if (stopping.signal.aborted) process.exit(1)
      log.info(`stopping on ${name}; once more to stop at once`)
      stop()
    })
  }
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, `nobody caught: ${error.message}`)
    exitCode = 1
    stop()
  })
  // A forgotten await in one handler is no reason to stop everybody's work.
  process.on('unhandledRejection', (reason) =>
    log.error({ err: toError(reason) }, 'a promise failed and nobody looked'),
  )

  let toldAt = 0
  function stop(): void {
    toldAt = performance.now()
    stopping.abort()
  }

  const told = new Promise<void>((resolve) =>
    stopping.signal.addEventListener('abort', () => resolve(), { once: true }),
  )
  return { stop: stopping.signal, told, exitCode: () => exitCode }
}
