import type pg from 'pg'
import { sleep } from '../../../src/kernel/clock.ts'
import { KerpError } from '../../../src/kernel/errors.ts'
import { isConnectionError, markLost, send } from '../../../src/engine/database/connection.ts'
import type { TransactionOptions } from '../../../src/engine/database/database.ts'
import { defaultContext } from '../../../src/engine/database/database.ts'
import type { Tx } from '../../../src/engine/database/transaction.ts'
import { openTxState, TxHandle } from '../../../src/engine/database/transaction.ts'
import type { Transactions } from '../../../src/engine/worker/handle.ts'
import type { SimProcess } from '../process.ts'
import type { Network } from './client.ts'
import { SimClient } from './client.ts'
import type { SimServer } from './server.ts'

/** One process's connections. Transactions run as in the engine's own database, over simulated connections. */
export class SimPool implements Transactions {
  readonly #process: SimProcess
  readonly #server: SimServer
  readonly #network: Network
  #idle: SimClient[] = []

  constructor(process: SimProcess, server: SimServer, network: Network) {
    this.#process = process
    this.#server = server
    this.#network = network
  }

  async connect(): Promise<SimClient> {
    await sleep(this.#process.clock, this.#network.delayMs())
    if (this.#server.up) return new SimClient(this.#process, this.#server, this.#network)
    throw markLost(new KerpError('DATABASE_UNREACHABLE', 'cannot connect to the simulated database'))
  }

  async run<Row>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const client = await this.#acquire()
    try {
      return (await send(asPg(client), { text, values: [...values] })).rows as Row[]
    } finally {
      this.#release(client)
    }
  }

  async transaction<T>(work: (tx: Tx) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
    const { retries = 3 } = options
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#attempt(work, options)
      } catch (error) {
        if (attempt >= retries || (error as { code?: string }).code !== '40P01') throw error
        await sleep(this.#process.clock, 2 ** attempt * 5 + this.#network.delayMs())
      }
    }
  }

  async #attempt<T>(work: (tx: Tx) => Promise<T>, { endsConnection }: TransactionOptions): Promise<T> {
    const client = await this.#acquire()
    const pgClient = asPg(client)
    const state = openTxState(pgClient)
    const tx = new TxHandle(state, defaultContext)
    try {
      const begun = send(pgClient, { text: 'begin' })
      begun.catch(() => {})
      const result = await work(tx)
      await begun
      tx.flush()
      tx.close('it has been committed')
      const { command } = await send(pgClient, { text: 'commit' })
      if (command === 'ROLLBACK') throw new KerpError('TRANSACTION_CLOSED', 'nothing was committed')
      return result
    } catch (error) {
      tx.close('it has been rolled back')
      if (endsConnection?.(error)) client.terminate()
      else if (!isConnectionError(error)) await send(pgClient, { text: 'rollback' }).catch(() => client.cut())
      throw error
    } finally {
      this.#release(client)
    }
  }

  async #acquire(): Promise<SimClient> {
    this.#idle = this.#idle.filter(({ usable }) => usable)
    return this.#idle.pop() ?? this.connect()
  }

  #release(client: SimClient): void {
    if (client.usable) this.#idle.push(client)
  }
}

function asPg(client: SimClient): pg.ClientBase {
  return client as unknown as pg.ClientBase
}
