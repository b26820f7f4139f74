import type { Clock } from '../../kernel/clock.ts'

/** The ids seen within the last `windowMs`. Two generations, so that forgetting is dropping a map instead of searching one. */
export class RecentIds {
  readonly #clock: Clock
  readonly #windowMs: number
  #young = new Map<string, number>()
  #old = new Map<string, number>()
  #youngSince: number

  constructor(clock: Clock, windowMs: number) {
    this.#clock = clock
    this.#windowMs = windowMs
    this.#youngSince = clock.monotonic()
  }

  has(id: string): boolean {
    const seenAt = this.#young.get(id) ?? this.#old.get(id)
    return seenAt !== undefined && this.#clock.monotonic() - seenAt < this.#windowMs
  }

  add(id: string): void {
    if (this.#windowMs === 0) return
    const now = this.#clock.monotonic()
    const age = now - this.#youngSince
    if (age >= this.#windowMs) {
      this.#old = age < 2 * this.#windowMs ? this.#young : new Map()
      this.#young = new Map()
      this.#youngSince = now
    }
    this.#young.set(id, now)
  }

  clear(): void {
    this.#young.clear()
    this.#old.clear()
  }
}
