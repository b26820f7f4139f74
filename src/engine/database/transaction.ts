import type pg from 'pg'
import { KerpError } from '../../kernel/errors.ts'
import type { EventContext } from '../../kernel/trace.ts'
import type { Queryable } from './connection.ts'
import { send, toQuery } from './connection.ts'
import type { Statement } from './sql.ts'
import { sql } from './sql.ts'

/** A handle on a part of a transaction, for somebody who must not use it any longer than is good. */
export interface TxPart extends Tx {
  /** From here on its statements are refused. */
  end(): void
}

/** A transaction of ours: what any client's offers, and what only ours can do. */
export interface Tx extends Queryable {
  /** For whom and because of what events are emitted here. */
  readonly context: EventContext
  /** Runs a statement written in place: `` tx.sql`select …` ``, prepared by itself. */
  sql<Row = Record<string, unknown>>(strings: TemplateStringsArray, ...values: unknown[]): Promise<Row[]>
  run<Row = Record<string, unknown>>(statement: Statement): Promise<Row[]>
  /** Rows as arrays of the text that Postgres sent, unparsed: for the machinery's own hot paths. */
  raw(statement: Statement): Promise<(string | null)[][]>
  /** A part that can fail by itself (a savepoint): when `work` throws, only what it did is undone. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  /** The same transaction, emitting in another context. */
  in(context: EventContext): TxPart
  /** Tells the waiting consumers of these events, once this has committed. */
  emitted(eventType: string): void
  /**
   * Leaves an item to be written together with all others of the same turn of the event loop, by the one statement that `write` makes
   * of them: a group of handlers that emit one event each costs one statement.
   */
  gather<Item>(write: (items: Item[]) => Statement, item: Item): Promise<void>
}

const asText = { getTypeParser: () => (text: string) => text }

/** What all handles of one transaction share. */
export interface TxState {
  readonly client: pg.ClientBase
  readonly emittedTypes: Set<string>
  /** Why no further statement may run, once that is so. */
  closed: string | undefined
  /** The handle inside an open savepoint: the others wait, or its rollback would undo statements of theirs. */
  savepoint: { handle: TxHandle; done: Promise<void> } | undefined
  depth: number
  gathered: { write: (items: any[]) => Statement; items: unknown[]; sent: PromiseWithResolvers<void> } | undefined
}

export function openTxState(client: pg.ClientBase): TxState {
  return { client, emittedTypes: new Set(), closed: undefined, savepoint: undefined, depth: 0, gathered: undefined }
}

/** A class because every message of a group has a handle of its own, by the thousand a second. */
export class TxHandle implements TxPart {
  readonly context: EventContext
  readonly #state: TxState
  readonly #parent: TxHandle | undefined
  #over = false

  constructor(state: TxState, context: EventContext, parent?: TxHandle) {
    this.#state = state
    this.context = context
    this.#parent = parent
  }

  in(context: EventContext): TxHandle {
    return new TxHandle(this.#state, context, this)
  }

  end(): void {
    this.#over = true
  }

  emitted(eventType: string): void {
    this.#state.emittedTypes.add(eventType)
  }

  query(text: string, values?: unknown[]): Promise<{ rows: any[] }> {
    // It may be a savepoint of somebody's own.
    this.flush()
    return this.#send(values === undefined ? { text } : { text, values })
  }

  run<Row>(statement: Statement): Promise<Row[]> {
    return forgettable(this.#send(toQuery(statement)).then(({ rows }) => rows as Row[]))
  }

  raw(statement: Statement): Promise<(string | null)[][]> {
    const query = { ...toQuery(statement), rowMode: 'array', types: asText } as pg.QueryConfig
    return forgettable(this.#send(query).then(({ rows }) => rows as unknown as (string | null)[][]))
  }

  sql<Row>(strings: TemplateStringsArray, ...values: unknown[]): Promise<Row[]> {
    return this.run<Row>(sql(strings, ...values))
  }

  async transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    const state = this.#state
    const inner = new TxHandle(state, this.context, this)
    const { promise: done, resolve: finish } = Promise.withResolvers<void>()
    const before = await this.#inTurn(() => {
      const outer = state.savepoint
      state.savepoint = { handle: inner, done }
      return outer
    })
    const name = `kerp_${++state.depth}`
    try {
      this.flush()
      await send(state.client, { text: `savepoint ${name}` })
      const result = await work(inner)
      // The connection may be in somebody else's transaction by now.
      if (state.closed) throw closedError(state.closed)
      this.flush()
      await send(state.client, { text: `release savepoint ${name}` })
      return result
    } catch (error) {
      this.flush()
      if (!state.closed) await send(state.client, { text: `rollback to savepoint ${name}; release savepoint ${name}` })
      throw error
    } finally {
      inner.end()
      state.savepoint = before
      finish()
    }
  }

  gather<Item>(write: (items: Item[]) => Statement, item: Item): Promise<void> {
    const mustWait = this.#state.savepoint || this.#closedReason()
    return forgettable(mustWait ? this.#inTurn(() => this.#gather(write, item)) : this.#gather(write, item))
  }

  #gather<Item>(write: (items: Item[]) => Statement, item: Item): Promise<void> {
    const state = this.#state
    if (state.gathered?.write !== write) {
      this.flush()
      state.gathered = { write, items: [], sent: Promise.withResolvers<void>() }
      // After everything that was woken by the same answer of the server, so that all of it goes together.
      process.nextTick(() => this.flush())
    }
    state.gathered!.items.push(item)
    return state.gathered!.sent.promise
  }

  /** Sends what was gathered: before a savepoint begins or ends, and before the commit. */
  flush(): void {
    const state = this.#state
    const { gathered } = state
    if (!gathered) return
    state.gathered = undefined
    const { write, items, sent } = gathered
    if (state.closed) return sent.reject(closedError(state.closed))
    send(state.client, toQuery(write(items))).then(() => sent.resolve(), sent.reject)
  }

  /** Called by whoever opened it: from here on a forgotten `await` ends in an error instead of in somebody else's transaction. */
  close(reason: string): void {
    this.#over = true
    this.#state.closed ??= reason
  }

  #send(query: pg.QueryConfig): Promise<pg.QueryResult> {
    const mustWait = this.#state.savepoint || this.#closedReason()
    return forgettable(mustWait ? this.#inTurn(() => send(this.#state.client, query)) : send(this.#state.client, query))
  }

  /** Acts once no savepoint of somebody else is open: at once then, or the next in the queue might open another in between. */
  async #inTurn<T>(action: () => T | Promise<T>): Promise<T> {
    for (;;) {
      const reason = this.#closedReason()
      if (reason) throw closedError(reason)
      const open = this.#state.savepoint
      if (!open || this.#isWithin(open.handle)) return action()
      await open.done
    }
  }

  #closedReason(): string | undefined {
    return this.#state.closed ?? (this.#isOver() ? 'its function has returned' : undefined)
  }

  #isOver(): boolean {
    return this.#over || (this.#parent !== undefined && this.#parent.#isOver())
  }

  #isWithin(ancestor: TxHandle): boolean {
    return this === ancestor || (this.#parent !== undefined && this.#parent.#isWithin(ancestor))
  }
}

function closedError(reason: string): KerpError {
  return new KerpError('TRANSACTION_CLOSED', `a query came after the transaction was over: ${reason}`, {
    hint: 'await every query inside the function that was given the transaction',
  })
}

/** A query that nobody awaits must not end the process by its failure; that still makes the commit fail. */
function forgettable<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}
