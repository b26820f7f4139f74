import type { Envelope } from '../../../src/kernel/envelope.ts'
import type { DeadLetter } from '../../../src/engine/transport.ts'
import { connectionLost } from './errors.ts'
import type { LockOwner } from './locks.ts'
import type { SimServer } from './server.ts'

export interface Effect {
  readonly consumer: string
  readonly eventId: string
  readonly key: string | null
  readonly step: number
  readonly answer?: string | undefined
}

/** The rows there are, by table. */
export interface Tables {
  events: Envelope
  outbox: { readonly id: number; readonly shard: number; readonly envelope: Envelope }
  inbox: true
  effects: Effect
  kept: { readonly result: unknown }
  dead: DeadLetter
  versions: number
}

export type TableName = keyof Tables

export interface Write {
  readonly table: TableName
  readonly key: string
  /** Undefined: deleted. */
  readonly row: Tables[TableName] | undefined
}

interface Savepoint {
  readonly name: string
  readonly writes: number
  readonly locks: number
}

/** Read committed: it sees what has committed and its own writes; nobody sees those before it commits. */
export class SimTransaction implements LockOwner {
  readonly #server: SimServer
  readonly #writes: Write[] = []
  readonly locks: string[] = []
  readonly #savepoints: Savepoint[] = []
  /** After a failed statement nothing is done any more until the rollback. */
  doomed = false
  #ended = false

  constructor(server: SimServer) {
    this.#server = server
  }

  get<Name extends TableName>(table: Name, key: string): Tables[Name] | undefined {
    const own = this.#writes.findLast((write) => write.table === table && write.key === key)
    return (own ? own.row : this.#server.table(table).get(key)) as Tables[Name] | undefined
  }

  put<Name extends TableName>(table: Name, key: string, row: Tables[Name] | undefined): void {
    this.#writes.push({ table, key, row })
  }

  async lock(table: TableName, key: string): Promise<void> {
    await this.#server.locks.take(`${table} ${key}`, this)
    if (this.#ended) throw connectionLost()
  }

  /** `insert … on conflict do nothing`: waits for whoever is inserting the same key, then says whether the row is ours. */
  async insert<Name extends TableName>(table: Name, key: string, row: Tables[Name]): Promise<boolean> {
    await this.lock(table, key)
    if (this.get(table, key) !== undefined) return false
    this.put(table, key, row)
    return true
  }

  savepoint(name: string): void {
    this.#savepoints.push({ name, writes: this.#writes.length, locks: this.locks.length })
  }

  rollbackTo(name: string): void {
    const savepoint = this.#savepoints.findLast((each) => each.name === name)
    if (!savepoint) return
    this.#writes.length = savepoint.writes
    for (const lock of this.locks.splice(savepoint.locks)) this.#server.locks.release(lock)
    this.doomed = false
  }

  commit(): void {
    this.#server.apply(this.#writes)
    this.#end()
  }

  rollback(error: Error): void {
    this.#server.locks.giveUp(this, error)
    this.#end()
  }

  #end(): void {
    this.#ended = true
    for (const lock of this.locks.splice(0)) this.#server.locks.release(lock)
  }
}
