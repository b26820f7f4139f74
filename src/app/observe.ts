import type { Observer } from '../engine/telemetry/observer.ts'
import { silentObserver } from '../engine/telemetry/observer.ts'
import type { Log } from './log.ts'

/** What an operator wants to read: attempts that failed, and what no attempt can help. */
export function loggingObserver(log: Log, failed: (where: string, error: Error) => void): Observer {
  return {
    ...silentObserver,
    attemptFailed(consumer, { envelope, attempt }, settlement) {
      if (settlement.do === 'ack') return
      const { eventId, eventType } = envelope
      const details = { consumer, eventId, eventType, attempt }
      if (settlement.do === 'dead') {
        const { reason, error: err } = settlement
        return log.error({ ...details, reason, err }, `gave up on an event: ${err?.message ?? reason}`)
      }
      // An event may fail often, and many for one reason: the reason is what is worth a line.
      if (settlement.error) failed(consumer, settlement.error)
      log.debug({ ...details, afterMs: settlement.afterMs }, 'an attempt failed')
    },
    relayFailed: (_count, error) => failed('relay', error),
    failed,
  }
}
