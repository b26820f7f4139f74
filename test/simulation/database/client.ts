import type { Clock } from '../../../src/kernel/clock.ts'
import type { SimProcess } from '../process.ts'
import { connectionLost, notQueryable } from './errors.ts'
import type { SimServer } from './server.ts'
import type { Answer } from './session.ts'
import { SimSession } from './session.ts'

/** What may befall one statement on its way to the server and back. */
export type StatementFault = 'lost before' | 'lost after' | 'crash before' | 'crash after'

/** The network between the programs and the database: how long it takes, and what goes wrong. */
export interface Network {
  readonly clock: Clock
  delayMs(): number
  /** Until the server notices that a connection is broken. */
  noticeMs(): number
  fault(process: SimProcess, statement: string): StatementFault | undefined
}

/** What a `pg.Client` is to the engine: statements are sent ahead and answered in order. */
export class SimClient {
  /** `pg` has a socket there, and the engine holds it back for a moment so that statements leave together. */
  readonly connection = { stream: { cork() {}, uncork() {} } }
  readonly #process: SimProcess
  readonly #network: Network
  readonly #session: SimSession
  readonly #pending = new Set<(error: Error) => void>()
  readonly #atEnd: (() => void)[] = []
  /** Nothing overtakes on a connection. */
  #sentUntil = 0
  #answeredUntil = 0
  #state: 'open' | 'broken' | 'closed' = 'open'

  constructor(process: SimProcess, server: SimServer, network: Network) {
    this.#process = process
    this.#network = network
    this.#session = new SimSession(server, () => this.#break())
    // What was sent before the death still arrives.
    process.atEnd(() => this.#atArrival(() => this.#session.hangUp()))
  }

  get usable(): boolean {
    return this.#state === 'open'
  }

  query(statement: string | { text: string; values?: readonly unknown[] }): Promise<Answer> {
    const { text, values = [] } = typeof statement === 'string' ? { text: statement } : statement
    if (this.#state !== 'open') return Promise.reject(notQueryable())
    const fault = this.#network.fault(this.#process, text)
    return new Promise((resolve, reject) => {
      this.#pending.add(reject)
      const settle = (hand: () => void) => this.#answer(fault, () => this.#pending.delete(reject) && hand())
      if (fault === 'crash before') return this.#process.kill()
      if (fault === 'lost before') return this.cut()
      this.#atArrival(() =>
        this.#session.execute(text, values).then(
          (answer) => settle(() => resolve(answer)),
          (error: Error) => settle(() => reject(error)),
        ),
      )
    })
  }

  on(event: 'end', listener: () => void): this {
    if (event === 'end') this.#atEnd.push(listener)
    return this
  }

  async end(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'closed'
    this.#atArrival(() => this.#session.hangUp())
  }

  /** The network between the two is gone: here it is seen at once, there after a while. */
  cut(): void {
    if (this.#state !== 'open') return
    this.#break()
    this.#network.clock.after(this.#network.noticeMs(), () => this.#session.hangUp())
  }

  /** As with pg_terminate_backend. */
  terminate(): void {
    this.#session.kill()
  }

  #atArrival(action: () => void): void {
    const { clock } = this.#network
    this.#sentUntil = Math.max(this.#sentUntil, clock.monotonic() + this.#network.delayMs())
    clock.after(this.#sentUntil - clock.monotonic(), () => this.#state !== 'broken' && action())
  }

  #answer(fault: StatementFault | undefined, hand: () => void): void {
    if (fault === 'crash after') return this.#process.kill()
    if (fault === 'lost after') return this.cut()
    const { clock } = this.#network
    this.#answeredUntil = Math.max(this.#answeredUntil, clock.monotonic() + this.#network.delayMs())
    clock.after(this.#answeredUntil - clock.monotonic(), () => this.#process.deliver(hand))
  }

  #break(): void {
    if (this.#state !== 'open') return
    this.#state = 'broken'
    this.#process.deliver(() => {
      const pending = [...this.#pending]
      this.#pending.clear()
      for (const reject of pending) reject(connectionLost())
      for (const listener of this.#atEnd) listener()
    })
  }
}
