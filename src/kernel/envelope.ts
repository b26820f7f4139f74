import { KerpError } from './errors.ts'
import { isUuid } from './ids.ts'

/** An event on its way: the standard body (`eventId`, `eventType`, `timestamp`, `data`) and what travels beside it as headers. */
export interface Envelope {
  readonly eventId: string
  readonly eventType: string
  /** ISO 8601: when it was emitted. */
  readonly timestamp: string
  readonly data: unknown
  readonly version: number
  readonly key: string | null
  readonly companyId: string
  /** W3C trace context of whoever emitted it. */
  readonly traceparent?: string
  /** The first cause of a chain of events: an HTTP request's id, or the first event's. */
  readonly correlationId?: string
  /** The event whose handler emitted this one. */
  readonly causationId?: string
  readonly source?: string
}

export interface Message {
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
}

const optionalHeaders = ['traceparent', 'correlationId', 'causationId', 'source'] as const

export function toMessage(envelope: Envelope): Message {
  const { eventId, eventType, timestamp, data, version, key, companyId } = envelope
  const headers: Record<string, string> = { version: String(version), companyId }
  if (key !== null) headers['key'] = key
  for (const name of optionalHeaders) {
    const value = envelope[name]
    if (value !== undefined) headers[name] = value
  }
  return { body: JSON.stringify({ eventId, eventType, timestamp, data }), headers }
}

export function fromMessage({ body, headers }: Message): Envelope {
  const parsed = parseObject(body)
  checkBody(parsed)
  const { eventId, eventType, timestamp } = parsed
  const version = Number(headers['version'] ?? 1)
  if (!Number.isInteger(version) || version < 1) {
    throw unreadable(`the header version is '${headers['version']}', not a number from 1 up`)
  }
  const envelope: Record<string, unknown> = {
    eventId,
    eventType,
    timestamp,
    data: parsed['data'],
    version,
    key: headers['key'] ?? null,
    companyId: headers['companyId'] ?? 'default',
  }
  for (const name of optionalHeaders) if (headers[name] !== undefined) envelope[name] = headers[name]
  return envelope as unknown as Envelope
}

/** From its whole JSON, as it is stored: by us or by whoever else writes into our tables. */
export function readEnvelope(text: string): Envelope {
  const envelope = parseObject(text)
  checkBody(envelope)
  const { version, key, companyId } = envelope
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1)
    throw unreadable('version is not a number from 1 up')
  if (key !== null && typeof key !== 'string') throw unreadable('key is neither text nor null')
  if (typeof companyId !== 'string') throw unreadable('companyId is missing')
  return envelope as unknown as Envelope
}

function checkBody(
  parsed: Record<string, unknown>,
): asserts parsed is Record<string, unknown> & Pick<Envelope, 'eventId' | 'eventType' | 'timestamp' | 'data'> {
  const { eventId, eventType, timestamp } = parsed
  if (typeof eventId !== 'string' || !isUuid(eventId)) throw unreadable('eventId is not a UUID')
  if (typeof eventType !== 'string' || eventType === '') throw unreadable('eventType is missing')
  if (typeof timestamp !== 'string' || Number.isNaN(Date.parse(timestamp))) throw unreadable('timestamp is not a time')
  if (!('data' in parsed)) throw unreadable('data are missing')
}

function unreadable(what: string, cause?: unknown): KerpError {
  return new KerpError(
    'MESSAGE_UNREADABLE',
    `the message is not an event: ${what}`,
    cause === undefined ? {} : { cause },
  )
}

function parseObject(body: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(body)
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>
  } catch (cause) {
    throw unreadable('it is not JSON', cause)
  }
  throw unreadable('it is not a JSON object')
}
