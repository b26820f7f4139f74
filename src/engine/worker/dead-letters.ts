import { createHash } from 'node:crypto'
import { newId } from '../../kernel/ids.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import type { Database } from '../database/database.ts'
import { sql, storable } from '../database/sql.ts'
import type { Tx } from '../database/transaction.ts'
import type { DeadLetter, DeadLetterSink } from '../transport.ts'
import { toRow } from '../outbox/emit.ts'

/**
 * One table for all brokers. In the inbox it counts as done: a copy that comes later, and would perhaps succeed, is only acknowledged,
 * and of what has been done already no letter is written.
 */
export function deadLetterSink(database: Database): DeadLetterSink {
  return async (letter, tx) => {
    await insert(tx ?? database, letter)
  }
}

async function insert(on: Tx | Database, letter: DeadLetter): Promise<void> {
  const { consumer, envelope, raw = '', reason, attempts, error } = letter
  const chain = errorChain(error)
  const eventId = envelope?.eventId ?? null
  await on.sql`
    with known as (
      select id from kerp.consumers where name = ${consumer} and ${eventId}::uuid is not null
    ), noted as (
      insert into kerp.processed_events (event_id, consumer_id) select ${eventId}::uuid, id from known on conflict do nothing returning event_id
    )
    insert into kerp.dead_letters (id, consumer, event_id, event_type, company_id, reason, error, fingerprint, attempts, envelope, first_at)
    select ${newId()}::uuid, ${consumer}, ${eventId}::uuid, ${envelope?.eventType ?? null}, ${envelope?.companyId ?? null}, ${reason},
      ${JSON.stringify(chain)}::jsonb, ${fingerprint(consumer, chain)}, ${attempts}::int, ${envelope ? JSON.stringify(envelope) : storable(raw)},
      ${envelope?.timestamp ?? null}::timestamptz
    where not exists (select from known) or exists (select from noted)
    on conflict (consumer, event_id) where state = 'dead' do nothing`
}

interface ErrorLink {
  name: string
  code?: string
  message: string
  stack?: string
}

/** The error and what caused it, outermost first. */
export function errorChain(error: Error | undefined): ErrorLink[] {
  const chain: ErrorLink[] = []
  for (let link: unknown = error; link instanceof Error && chain.length < 10; link = link.cause) {
    const { message, stack } = link
    const name = storable(String(link.name))
    const code = (link as { code?: unknown }).code
    chain.push({
      name,
      message: storable(String(message)),
      ...(typeof code === 'string' && { code: storable(code) }),
      ...(stack && { stack: storable(String(stack)) }),
    })
  }
  return chain
}

/** UUIDs, long hexadecimal numbers, amounts. */
const varying = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d+(?:[.,]\d+)*/gi

/** The same for failures that differ only in numbers and ids, so that a thousand of one kind are one line. */
function fingerprint(consumer: string, chain: readonly ErrorLink[]): string {
  const words = chain.map(({ name, code, message }) => `${name} ${code ?? ''} ${message.replace(varying, '#')}`)
  return createHash('sha256')
    .update([consumer, ...words].join('\n'))
    .digest('hex')
    .slice(0, 16)
}

export interface DeadLetterRow {
  id: string
  consumer: string
  eventId: string | null
  eventType: string | null
  companyId: string | null
  reason: string
  message: string
  fingerprint: string
  attempts: number
  diedAt: Date
  state: 'dead' | 'redriven' | 'discarded'
  resolvedAt: Date | null
  resolvedBy: string | null
}

const summary = sql`id, consumer, event_id as "eventId", event_type as "eventType", company_id as "companyId", reason,
  coalesce(error -> 0 ->> 'message', '') as message, fingerprint, attempts, died_at as "diedAt", state, resolved_at as "resolvedAt", resolved_by as "resolvedBy"`

export interface DeadLetterFilter {
  consumer?: string
  fingerprint?: string
  state?: DeadLetterRow['state']
  /** The last id of the page before: newest come first. */
  cursor?: string
  limit: number
}

export async function listDeadLetters(
  database: Database,
  { consumer, fingerprint, state = 'dead', cursor, limit }: DeadLetterFilter,
): Promise<{ items: DeadLetterRow[]; nextCursor: string | null }> {
  const rows = await database.run<DeadLetterRow>(sql`
    select ${summary} from kerp.dead_letters
    where state = ${state} and (${consumer ?? null}::text is null or consumer = ${consumer ?? null})
      and (${fingerprint ?? null}::text is null or fingerprint = ${fingerprint ?? null})
      and (${cursor ?? null}::uuid is null or id < ${cursor ?? null})
    order by id desc limit ${limit + 1}`)
  const items = rows.slice(0, limit)
  return { items, nextCursor: rows.length > limit ? items.at(-1)!.id : null }
}

export interface DeadLetterDetail extends DeadLetterRow {
  error: ErrorLink[]
  /** As it was received: JSON of the envelope, or the bytes of what could not be read. */
  envelope: string
}

export async function showDeadLetter(database: Database, id: string): Promise<DeadLetterDetail | undefined> {
  const [row] = await database.run<DeadLetterDetail>(
    sql`select ${summary}, error, envelope from kerp.dead_letters where id = ${id}`,
  )
  return row
}

export interface ResolveOptions {
  ids?: readonly string[]
  consumer?: string
  /** Who did it, for the record. */
  by: string
  limit?: number
}

/**
 * Sends dead letters to their consumer again, and to no other. In one transaction with the note that it was done: a letter is
 * redriven once, whoever else presses the button. Returns how many; what could not be read, or has no consumer any more, stays.
 */
export async function redriveDeadLetters(
  database: Database,
  { ids, consumer, by, limit = 1000 }: ResolveOptions,
): Promise<number> {
  return database.transaction(async (tx) => {
    const letters = await tx.sql<{ consumer: string; envelope: string }>`
      update kerp.dead_letters set state = 'redriven', resolved_at = now(), resolved_by = ${by}
      where id = any (array(
        select id from kerp.dead_letters
        where state = 'dead' and event_id is not null and (consumer = 'relay' or consumer in (select name from kerp.consumers)) and (${ids ?? null}::uuid[] is null or id = any (${ids ?? null}::uuid[]))
          and (${consumer ?? null}::text is null or consumer = ${consumer ?? null})
        order by id limit ${limit} for update skip locked))
      returning consumer, envelope`
    for (const letter of letters) {
      const envelope = JSON.parse(letter.envelope) as Envelope
      await queueAgain(tx, letter.consumer, envelope)
      tx.emitted(envelope.eventType)
    }
    return letters.length
  })
}

/** Straight to the consumer's rows in this database: workers take those beside what comes from a broker. The relay's go back to it. */
async function queueAgain(tx: Tx, consumer: string, envelope: Envelope): Promise<void> {
  const { event_id, key, envelope: text } = toRow(envelope)
  await tx.sql`
    delete from kerp.processed_events
    where event_id = ${event_id} and consumer_id = (select id from kerp.consumers where name = ${consumer})`
  if (consumer === 'relay') {
    await tx.sql`
      insert into kerp.outbox_events (shard, event_id, key, envelope)
      values (hashtext(coalesce(${key}::text, ${event_id}::uuid::text)) & 7, ${event_id}::uuid, ${key}, ${text})`
  } else {
    await tx.sql`
      insert into kerp.deliveries (consumer_id, lane, event_id, key, envelope)
      select id, kerp.lane_of(${key}), ${event_id}::uuid, ${key}, ${text} from kerp.consumers where name = ${consumer}`
  }
}

export async function discardDeadLetters(
  database: Database,
  { ids, consumer, by, limit = 1000 }: ResolveOptions,
): Promise<number> {
  const rows = await database.sql`
    update kerp.dead_letters set state = 'discarded', resolved_at = now(), resolved_by = ${by}
    where id = any (array(
      select id from kerp.dead_letters
      where state = 'dead' and (${ids ?? null}::uuid[] is null or id = any (${ids ?? null}::uuid[]))
        and (${consumer ?? null}::text is null or consumer = ${consumer ?? null})
      order by id limit ${limit} for update skip locked))
    returning id`
  return rows.length
}
