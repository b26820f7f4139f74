import { systemClock } from '../../kernel/clock.ts'
import type { Clock } from '../../kernel/clock.ts'
import { KerpError } from '../../kernel/errors.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import type { DataOf, EventType } from '../../kernel/event.ts'
import { newId } from '../../kernel/ids.ts'
import type { EventContext } from '../../kernel/trace.ts'
import type { Queryable } from '../database/connection.ts'
import type { Tx } from '../database/transaction.ts'
import { defaultContext } from '../database/database.ts'
import { sql } from '../database/sql.ts'
import type { Statement } from '../database/sql.ts'

export interface EmitOptions extends Partial<EventContext> {
  /** In place of the key that the event type declares. */
  key?: string
  clock?: Clock
  newId?: () => string
}

/** An index holds it. The database refuses longer ones from other clients, too. */
const maxKeyLength = 500

/** No broker takes more than this without a claim check; refusing it here keeps the business transaction's author informed. */
export const maxEventBytes = 1_000_000

/**
 * Writes an event into the caller's transaction: it exists if and only if that commits. `tx` may be of any client with a
 * `query(text, values)`; one of ours also passes on for whom and why the event is emitted. Returns the event's id.
 */
export async function emit<Type extends EventType<any>>(
  tx: Queryable | Tx,
  type: Type,
  data: DataOf<Type>,
  options: EmitOptions = {},
): Promise<string> {
  const [id] = await emitAll(tx, [[type, data]], options)
  return id!
}

/** Several events in one statement, in the order given. */
export async function emitAll(
  tx: Queryable | Tx,
  events: readonly (readonly [type: EventType<any>, data: unknown])[],
  options: EmitOptions = {},
): Promise<string[]> {
  if (events.length === 0) return []
  const context = { ...('context' in tx ? tx.context : defaultContext), ...options }
  const rows = events.map(([type, data]) => toRow(toEnvelope(type, data, context, options)))
  await write(tx, rows)
  if ('emitted' in tx) for (const [type] of events) tx.emitted(type.name)
  return rows.map((row) => row.event_id)
}

function toEnvelope(type: EventType, data: unknown, context: EventContext, options: EmitOptions): Envelope {
  const { clock = systemClock, newId: makeId = newId } = options
  return {
    eventId: makeId(),
    eventType: type.name,
    timestamp: new Date(clock.now()).toISOString(),
    data: type.encode(data),
    version: type.version,
    key: options.key ?? type.keyOf(data),
    companyId: context.companyId,
    ...(context.traceparent === undefined ? {} : { traceparent: context.traceparent }),
    ...(context.correlationId === undefined ? {} : { correlationId: context.correlationId }),
    ...(context.causationId === undefined ? {} : { causationId: context.causationId }),
    ...(context.source === undefined ? {} : { source: context.source }),
  }
}

export interface EmitRow {
  event_id: string
  event_type: string
  company_id: string
  key: string | null
  envelope: string
}

export function toRow(envelope: Envelope): EmitRow {
  const text = JSON.stringify(envelope)
  // A character is at most three bytes of UTF-8 here, so most events need no counting.
  if (text.length > maxEventBytes / 3 && Buffer.byteLength(text) > maxEventBytes) {
    throw new KerpError(
      'EVENT_TOO_LARGE',
      `${envelope.eventType} is ${Buffer.byteLength(text)} bytes, at most ${maxEventBytes} can be sent`,
      {
        hint: 'keep the large part in a table or a file store and send its id',
      },
    )
  }
  const { eventId, eventType, companyId, key } = envelope
  if (key !== null && key.length > maxKeyLength) {
    throw new KerpError(
      'EVENT_INVALID',
      `the key of ${eventType} is ${key.length} characters long, at most ${maxKeyLength} are allowed`,
      {
        hint: 'a key is an id: of an employee, an account, an item',
      },
    )
  }
  return { event_id: eventId, event_type: eventType, company_id: companyId, key, envelope: text }
}

/** In a transaction of ours, events emitted side by side are written together. */
async function write(tx: Queryable | Tx, rows: EmitRow[]): Promise<void> {
  if ('gather' in tx) await Promise.all(rows.map((row) => tx.gather(emitStatement, row)))
  else await tx.query('select kerp.emit($1)', [JSON.stringify(rows)])
}

function emitStatement(rows: EmitRow[]): Statement {
  return sql`select kerp.emit(${JSON.stringify(rows)})`
}
