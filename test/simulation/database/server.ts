import type { Clock } from '../../../src/kernel/clock.ts'
import { Locks } from './locks.ts'
import type { SimSession } from './session.ts'
import type { TableName, Tables, Write } from './transaction.ts'

/** A transaction left open by a frozen process is ended by the server after this long, as the real one is told to. */
const idleInTransactionMs = 8000
const patrolMs = 1000

/** The database behind all connections: rows that have committed, locks, and the sessions that are open. */
export class SimServer {
  readonly locks = new Locks()
  readonly sessions = new Set<SimSession>()
  /** Session locks, by their number. */
  readonly advisory = new Map<number, SimSession>()
  readonly #clock: Clock
  readonly #tables = new Map<TableName, Map<string, unknown>>()
  readonly #listeners: ((writes: readonly Write[]) => void)[] = []
  #numbers = 0
  up = true

  constructor(clock: Clock) {
    this.#clock = clock
    const patrol = () => {
      this.#endIdle()
      clock.after(patrolMs, patrol)
    }
    patrol()
  }

  now(): number {
    return this.#clock.monotonic()
  }

  table<Name extends TableName>(name: Name): Map<string, Tables[Name]> {
    let rows = this.#tables.get(name)
    if (!rows) this.#tables.set(name, (rows = new Map()))
    return rows as Map<string, Tables[Name]>
  }

  /** Handed out at once and never again, whatever becomes of the transaction. */
  nextNumber(): number {
    return ++this.#numbers
  }

  apply(writes: readonly Write[]): void {
    for (const { table, key, row } of writes) {
      if (row === undefined) this.table(table).delete(key)
      else this.table(table).set(key, row as never)
    }
    if (writes.length) for (const listener of this.#listeners) listener(writes)
  }

  onCommit(listener: (writes: readonly Write[]) => void): void {
    this.#listeners.push(listener)
  }

  get openTransactions(): number {
    let count = 0
    for (const session of this.sessions) if (session.inTransaction) count++
    return count
  }

  /** As if killed: what has committed is there afterwards, what was open is not. */
  goAway(): void {
    this.up = false
    for (const session of this.sessions) session.kill()
  }

  comeBack(): void {
    this.up = true
  }

  #endIdle(): void {
    const now = this.now()
    for (const session of this.sessions) {
      if (session.busy) continue
      const limit = session.inTransaction ? idleInTransactionMs : session.idleTimeoutMs
      if (now - session.idleSince > limit) session.kill()
    }
  }
}
