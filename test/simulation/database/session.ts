import { connectionLost, sqlError } from './errors.ts'
import type { SimServer } from './server.ts'
import { statements } from './statements.ts'
import { SimTransaction } from './transaction.ts'

export interface Answer {
  readonly rows: unknown[]
  readonly command: string
}

/** The server's end of a connection: carries out one statement after the other, however many were sent ahead. */
export class SimSession {
  readonly #server: SimServer
  readonly #onEnd: () => void
  #transaction: SimTransaction | undefined
  /** The transaction of a single statement outside of any other. */
  #single: SimTransaction | undefined
  #tail: Promise<unknown> = Promise.resolve()
  #waiting = 0
  #ended = false
  idleSince: number
  idleTimeoutMs = Infinity

  constructor(server: SimServer, onEnd: () => void) {
    this.#server = server
    this.#onEnd = onEnd
    this.idleSince = server.now()
    server.sessions.add(this)
  }

  get busy(): boolean {
    return this.#waiting > 0
  }

  get inTransaction(): boolean {
    return this.#transaction !== undefined
  }

  execute(text: string, values: readonly unknown[]): Promise<Answer> {
    this.#waiting++
    const answer = this.#tail.then(() => this.#carryOut(text, values))
    this.#tail = answer.catch(() => {}).then(() => this.#rest())
    return answer
  }

  /** The client has hung up: what it had sent is still carried out, what is open then is rolled back. */
  hangUp(): void {
    this.#tail = this.#tail.then(() => this.kill())
  }

  kill(): void {
    if (this.#ended) return
    this.#ended = true
    const { sessions, advisory } = this.#server
    sessions.delete(this)
    for (const [number, holder] of advisory) if (holder === this) advisory.delete(number)
    this.#rollback()
    this.#single?.rollback(connectionLost())
    this.#onEnd()
  }

  #rest(): void {
    this.#waiting--
    this.idleSince = this.#server.now()
  }

  async #carryOut(text: string, values: readonly unknown[]): Promise<Answer> {
    if (this.#ended) throw connectionLost()
    const control = this.#control(text)
    if (control) return { rows: [], command: control }
    if (text.includes('pg_try_advisory_lock')) return { rows: this.#tryLocks(values[0] as number[]), command: 'SELECT' }
    return { rows: await this.#run(text, values), command: 'SELECT' }
  }

  /** What is about the transaction or the session itself; undefined for every other statement. */
  #control(text: string): string | undefined {
    const [first, second] = text.split(/[ ;]/) as [string, string?]
    if (first === 'begin') this.#transaction = new SimTransaction(this.#server)
    else if (first === 'commit') return this.#commit()
    else if (first === 'rollback' && second === 'to') this.#transaction?.rollbackTo(text.split(/[ ;]/)[3]!)
    else if (first === 'rollback') this.#rollback()
    else if (first === 'savepoint') this.#transaction?.savepoint(second!)
    else if (first === 'set') this.idleTimeoutMs = Number(/'(\d+)ms'/.exec(text)![1])
    else if (first !== 'release') return undefined
    return first.toUpperCase()
  }

  #commit(): string {
    const transaction = this.#transaction
    if (!transaction || transaction.doomed) return this.#rollback()
    this.#transaction = undefined
    transaction.commit()
    return 'COMMIT'
  }

  #rollback(): string {
    this.#transaction?.rollback(connectionLost())
    this.#transaction = undefined
    return 'ROLLBACK'
  }

  #tryLocks(numbers: readonly number[]): { shard: number; ours: boolean }[] {
    const { advisory } = this.#server
    return numbers.map((shard) => {
      if (!advisory.has(shard)) advisory.set(shard, this)
      return { shard, ours: advisory.get(shard) === this }
    })
  }

  async #run(text: string, values: readonly unknown[]): Promise<unknown[]> {
    const statement = statements[text]
    if (!statement) throw sqlError('42601', `the simulated database does not know the statement: ${text}`)
    const open = this.#transaction
    if (open?.doomed) throw sqlError('25P02', 'current transaction is aborted')
    const transaction = open ?? (this.#single = new SimTransaction(this.#server))
    try {
      const rows = await statement(transaction, values as never[], this.#server)
      if (!open) transaction.commit()
      return rows
    } catch (error) {
      if (open) open.doomed = true
      else transaction.rollback(connectionLost())
      throw error
    } finally {
      this.#single = undefined
    }
  }
}
