import { sleep } from '../../src/kernel/clock.ts'
import { notNow, permanent } from '../../src/engine/worker/retry.ts'
import type { Checker } from './checker.ts'
import type { Trouble } from './events.ts'
import type { SimProcess } from './process.ts'
import type { Random } from './random.ts'

/** The provider behind the outside calls: slow, now and then out of order, and the same answer for the same key. */
export class Outside {
  readonly #dice: Random
  readonly #checker: Checker

  constructor(dice: Random, checker: Checker) {
    this.#dice = dice
    this.#checker = checker
  }

  async call(
    process: SimProcess,
    consumer: string,
    { idempotencyKey: key, signal }: { idempotencyKey: string; signal: AbortSignal },
    trouble: Trouble['kind'] | undefined,
  ): Promise<string> {
    this.#checker.calls.started(process, consumer, key)
    await sleep(process.clock, this.#dice.chance(0.1) ? this.#dice.between(200, 2500) : this.#dice.between(1, 60))
    if (trouble === 'refuse') throw permanent('the provider will never take it')
    if (trouble === 'not now') throw notNow(300)
    if (trouble === 'hang') await new Promise(() => {})
    if (trouble === 'outage') throw new Error('the provider is out of order')
    // An answer that comes too late is heard by nobody.
    if (!signal.aborted) this.#checker.calls.answered(process, consumer, key)
    return answerTo(consumer, key)
  }
}

export function answerTo(consumer: string, key: string): string {
  return `answer of ${consumer} to ${key}`
}
