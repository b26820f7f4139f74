import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import type { Database } from '../database/database.ts'

/**
 * Wakes whoever waits for events, right after the commit that emitted them. Only a hint: everything that is woken also looks
 * by itself from time to time, so a lost one costs a moment.
 */
export interface Hints {
  /** `wake` is called when there may be events of these types, or of any. */
  listen(eventTypes: readonly string[] | '*', wake: () => void): () => void
  close(): Promise<void>
}

const channel = 'kerp_emitted'
const reconnectMs = 500
const pauseMs = 5

/**
 * Within this process the commit itself is the hint. Other processes get a NOTIFY, sent after the commit on another connection:
 * inside the business transaction it would take a lock that all commits of the server share. One is under way at a time; what is
 * emitted meanwhile goes with the next.
 */
export async function startHints(database: Database, onError: (error: Error) => void = () => {}): Promise<Hints> {
  const sender = randomUUID()
  const waiting = new Set<{ types: ReadonlySet<string> | '*'; wake: () => void }>()
  let unsent = new Set<string>()
  let sending = false
  let closed = false
  let client: pg.Client | undefined
  let retry: NodeJS.Timeout | undefined

  function wake(types: ReadonlySet<string> | '*'): void {
    for (const waiter of waiting) {
      if (types === '*' || waiter.types === '*' || !types.isDisjointFrom(waiter.types)) waiter.wake()
    }
  }

  async function send(): Promise<void> {
    sending = true
    while (unsent.size && !closed) {
      const types = [...unsent].join(' ')
      unsent = new Set()
      // A payload holds 8,000 bytes at most; with so many types, all are meant.
      const payload = `${sender} ${types.length < 7000 ? types : '*'}`
      await database.sql`select pg_notify(${channel}, ${payload})`.catch(onError)
      // Every NOTIFY is a commit of its own; with many commits a second, one for several of them is enough.
      await new Promise((resolve) => setTimeout(resolve, pauseMs).unref())
    }
    sending = false
  }

  function hear(payload: string | undefined): void {
    const [from, ...types] = (payload ?? '').split(' ')
    if (from === sender) return
    wake(types.length === 0 || types.includes('*') ? '*' : new Set(types))
  }

  async function connect(): Promise<void> {
    const next = await database.connect()
    next.on('notification', ({ payload }) => hear(payload))
    next.on('end', () => {
      if (client === next) reconnectLater()
    })
    await next.query(`listen ${channel}`)
    client = next
    if (closed) await next.end()
    // What was said while nobody listened is lost, so everyone looks.
    else wake('*')
  }

  function reconnectLater(): void {
    if (closed) return
    retry = setTimeout(() => void connect().catch((error: Error) => (onError(error), reconnectLater())), reconnectMs)
  }

  const unsubscribe = database.onEmitted((types) => {
    wake(types)
    for (const type of types) unsent.add(type)
    if (!sending) void send()
  })

  await connect()
  return {
    listen(eventTypes, wakeUp) {
      const waiter = { types: eventTypes === '*' ? ('*' as const) : new Set(eventTypes), wake: wakeUp }
      waiting.add(waiter)
      return () => void waiting.delete(waiter)
    },
    async close() {
      closed = true
      unsubscribe()
      clearTimeout(retry)
      await client?.end()
    },
  }
}
