import type { Write } from './database/transaction.ts'
import type { SimProcess } from './process.ts'

interface Record {
  calls: number
  /** Whose call was answered last, to somebody who was still listening. */
  answeredBy?: SimProcess | undefined
  keeping: number
  keepFailed: boolean
  /** Number of the commit that kept the answer, while it is kept. */
  keptAt?: number | undefined
  everKept: boolean
  done: boolean
}

/** Watches the outside calls: once an answer is there and kept, nobody has a reason to ask again. */
export class Calls {
  readonly #fail: (property: string, detail: string) => void
  readonly #records = new Map<string, Record>()
  /** Number of the last commit before a process looked for a kept answer. */
  readonly #lookedAt = new Map<string, number>()
  #commits = 0

  constructor(fail: (property: string, detail: string) => void) {
    this.#fail = fail
  }

  countOf(consumer: string, key: string): number {
    return this.#records.get(`${consumer} ${key}`)?.calls ?? 0
  }

  /** `alone`: the process has no other copy of it under way, so that the next call follows from this look. */
  looked(process: SimProcess, name: string, alone: boolean): void {
    this.#lookedAt.set(`${process.name} ${name}`, alone ? this.#commits : -1)
  }

  started(process: SimProcess, consumer: string, key: string): void {
    const name = `${consumer} ${key}`
    const record = this.#recordOf(name)
    record.calls++
    if (record.done) return
    const lookedAt = this.#lookedAt.get(`${process.name} ${name}`) ?? -1
    if (record.keptAt !== undefined && record.keptAt <= lookedAt) {
      this.#fail(
        'a kept answer is not asked for again',
        `${process.name} called for ${name} though its answer was kept`,
      )
    }
    const excused = record.keepFailed || record.keeping > 0 || record.everKept || !record.answeredBy?.alive
    if (!excused) {
      this.#fail('no second call without a crash', `${process.name} called again for ${name}, which had been answered`)
    }
  }

  answered(process: SimProcess, consumer: string, key: string): void {
    const record = this.#recordOf(`${consumer} ${key}`)
    record.answeredBy = process
    record.keepFailed = false
  }

  keepStarted(name: string): void {
    this.#recordOf(name).keeping++
  }

  keepEnded(name: string, failed: boolean): void {
    const record = this.#recordOf(name)
    record.keeping--
    record.keepFailed ||= failed
  }

  committed(writes: readonly Write[]): void {
    this.#commits++
    for (const { table, key, row } of writes) {
      if (table !== 'kept') continue
      const record = this.#recordOf(key)
      record.keptAt = row === undefined ? undefined : this.#commits
      record.everKept = true
    }
  }

  effectMade(consumer: string, key: string): void {
    this.#recordOf(`${consumer} ${key}`).done = true
  }

  #recordOf(name: string): Record {
    const known = this.#records.get(name)
    if (known) return known
    const fresh: Record = { calls: 0, keeping: 0, keepFailed: false, everKept: false, done: false }
    this.#records.set(name, fresh)
    return fresh
  }
}
