import type { Delivery, Settlement } from '../../src/engine/transport.ts'
import type { Envelope } from '../../src/kernel/envelope.ts'
import { isKerpError } from '../../src/kernel/errors.ts'
import type { Event } from '../../src/engine/worker/subscription.ts'
import type { MemoryBroker } from '../../src/transports/memory/index.ts'
import { isConnectionError } from '../../src/engine/database/connection.ts'
import { Calls } from './calls.ts'
import { consumersOf, performers } from './consumers.ts'
import type { SimServer } from './database/server.ts'
import type { Effect, Write } from './database/transaction.ts'
import type { EventData } from './events.ts'
import { answerTo } from './outside.ts'
import { attempts } from './plan.ts'

export interface Violation {
  readonly property: string
  readonly detail: string
  readonly atMs: number
}

export interface CheckerSetup {
  readonly server: SimServer
  readonly broker: MemoryBroker
  readonly note: (who: string, what: string) => void
}

/** Looks on, knowing the truth about every commit, and says when a promise is broken. */
export class Checker {
  violation: Violation | undefined
  readonly calls: Calls
  readonly #setup: CheckerSetup
  /** Effects by consumer and event. */
  readonly #made = new Map<string, Effect>()
  /** Of every consumer and key, the step that was done last. */
  readonly #lastStep = new Map<string, number>()

  constructor(setup: CheckerSetup) {
    this.#setup = setup
    this.calls = new Calls((property, detail) => this.fail(property, detail))
    setup.server.onCommit((writes) => this.#committed(writes))
  }

  get effects(): number {
    return this.#made.size
  }

  fail(property: string, detail: string): void {
    if (this.violation) return
    this.violation = { property, detail, atMs: this.#setup.broker.clock.monotonic() }
    this.#setup.note('checker', `!!! ${property}: ${detail}`)
  }

  published({ eventId, eventType }: Envelope): void {
    if (this.#setup.server.table('events').has(eventId)) return
    this.fail('only what has committed is published', `${eventType} ${eventId} was published and never committed`)
  }

  settled(consumer: string, { envelope, attempt }: Delivery, settlement: Settlement): void {
    const name = `${consumer} ${envelope.eventId}`
    if (settlement.do === 'retry' && settlement.blame === 'message' && attempt >= attempts) {
      this.fail('no more attempts than allowed', `${name} is to be tried again after attempt ${attempt} of ${attempts}`)
    }
    if (settlement.do === 'dead' && settlement.reason === 'attempts' && attempt < attempts) {
      this.fail('all attempts are made', `${name} was given up at attempt ${attempt} of ${attempts}`)
    }
    const blamed = settlement.do === 'dead' || (settlement.do === 'retry' && settlement.blame === 'message')
    const atShutdown = settlement.do !== 'ack' && isKerpError(settlement.error, 'WORKER_STOPPING')
    if (blamed && atShutdown) {
      this.fail('a shutdown costs no attempt', `${name} was blamed for it`)
    }
  }

  /** A handler runs. */
  tried(consumer: string, { eventId, attempt }: Event<unknown>): void {
    if (attempt > attempts) this.fail('no more attempts than allowed', `${consumer} ${eventId}: number ${attempt}`)
  }

  threw(consumer: string, error: Error): void {
    if (!isConnectionError(error)) return
    this.fail('an outage of the database costs no attempt', `a batch of ${consumer} was blamed: ${error.message}`)
  }

  #committed(writes: readonly Write[]): void {
    this.calls.committed(writes)
    for (const { table, row } of writes) if (table === 'effects') this.#effect(row as Effect)
  }

  #effect(effect: Effect): void {
    const { consumer, eventId, key, step, answer } = effect
    const name = `${consumer} ${eventId}`
    if (!this.#setup.server.table('events').has(eventId)) {
      this.fail('only what has committed has an effect', `${name} has one, and its event was never committed`)
    }
    if (this.#made.has(name)) this.fail('every effect once', `${name} was done twice`)
    this.#made.set(name, effect)
    if (performers.has(consumer)) this.#checkAnswer(name, consumer, eventId, answer)
    if (key !== null) this.#checkTurn(`${consumer} ${key}`, step)
  }

  #checkAnswer(name: string, consumer: string, eventId: string, answer: string | undefined): void {
    this.calls.effectMade(consumer, eventId)
    if (answer === answerTo(consumer, eventId)) return
    this.fail('the effect has the answer of the call', `${name} was committed with '${answer}'`)
  }

  #checkTurn(lane: string, step: number): void {
    const last = this.#lastStep.get(lane) ?? 0
    if (step < last) this.fail('the order within a key', `${lane}: ${step} was done after ${last}`)
    this.#lastStep.set(lane, Math.max(step, last))
  }

  /** Empty when everything that was to happen has happened; otherwise what is still there. */
  unfinished(): string {
    const { server, broker } = this.#setup
    const left: string[] = []
    const outbox = server.table('outbox').size
    if (outbox) left.push(`${outbox} events in the outbox`)
    if (server.openTransactions) left.push(`${server.openTransactions} open transactions`)
    for (const consumer of new Set(Object.values(consumersOf).flat())) {
      const { ready, inFlight, delayed } = broker.queue(consumer).depth()
      if (ready + inFlight + delayed) left.push(`${consumer}: ${ready} ready, ${inFlight} out, ${delayed} delayed`)
    }
    return left.join('; ')
  }

  /** When all is quiet: every event has its effect or its dead letter, with every consumer. */
  conclude(): void {
    for (const envelope of this.#setup.server.table('events').values()) {
      const buried = this.#setup.server.table('dead').has(`relay ${envelope.eventId}`)
      for (const consumer of consumersOf[envelope.eventType] ?? []) this.#concludeOne(consumer, envelope, buried)
    }
  }

  #concludeOne(consumer: string, { eventId, eventType, data }: Envelope, buried: boolean): void {
    const name = `${consumer} ${eventId}`
    const done = this.#made.has(name)
    const letter = this.#setup.server.table('dead').get(name)
    const { trouble, filler } = data as EventData
    const dead = letter !== undefined || buried
    if (!done && !dead)
      this.fail('nothing is lost', `${eventType} ${eventId} has neither effect nor dead letter at ${consumer}`)
    if (done && dead) this.fail('never an effect and a dead letter', `${name} has both`)
    if (buried && filler === undefined) this.fail('only the unpublishable is buried', `${eventType} ${eventId}`)
    if (done && trouble?.consumer === consumer && trouble.kind === 'refuse')
      this.fail('what is refused has no effect', name)
    if (letter && trouble?.consumer !== consumer && !isKerpError(letter.error, 'HANDLER_CRASHED')) {
      this.fail('the healthy do not die', `${name} was given up: ${letter.reason}, ${letter.error?.message}`)
    }
    if (done && performers.has(consumer) && this.calls.countOf(consumer, eventId) === 0) {
      this.fail('every effect has its call', `${name} has an effect and was never called`)
    }
  }
}
