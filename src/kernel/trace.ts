import type { Envelope } from './envelope.ts'

/** Who and what an event is emitted for; a handler's emits take it over from the event it handles. */
export interface EventContext {
  readonly companyId: string
  readonly traceparent?: string
  readonly correlationId?: string
  readonly causationId?: string
  readonly source?: string
}

export function contextOf(event: Envelope): EventContext {
  return {
    companyId: event.companyId,
    correlationId: event.correlationId ?? event.eventId,
    causationId: event.eventId,
    ...(event.traceparent === undefined ? {} : { traceparent: event.traceparent }),
  }
}

/** All zeros is no id. */
const pattern = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** The caller's W3C `traceparent` if it is a valid one, else the start of a trace of our own. */
export function traceparentFrom(header: string | undefined): string {
  if (header && pattern.test(header)) return header
  const bytes = crypto.getRandomValues(new Uint8Array(24))
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return `00-${hex.slice(0, 32)}-${hex.slice(32)}-01`
}
