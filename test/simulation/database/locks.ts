import { sqlError } from './errors.ts'

interface Waiter {
  readonly owner: object
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

interface Lock {
  holder: object
  readonly waiters: Waiter[]
}

/** Locks on rows, and on keys that are being inserted. Held until the transaction ends; who comes second waits in line. */
export class Locks {
  readonly #locks = new Map<string, Lock>()
  readonly #waitsFor = new Map<object, string>()

  get count(): number {
    return this.#locks.size
  }

  /** Undefined when the owner had it before; then giving it back is not its business either. */
  async take(name: string, owner: object): Promise<'taken' | undefined> {
    const lock = this.#locks.get(name)
    if (!lock) {
      this.#locks.set(name, { holder: owner, waiters: [] })
      return 'taken'
    }
    if (lock.holder === owner) return undefined
    if (this.#leadsTo(lock.holder, owner)) throw sqlError('40P01', 'deadlock detected')
    this.#waitsFor.set(owner, name)
    await new Promise<void>((resolve, reject) => lock.waiters.push({ owner, resolve, reject }))
    return 'taken'
  }

  release(name: string): void {
    const lock = this.#locks.get(name)
    if (!lock) return
    const next = lock.waiters.shift()
    if (!next) return void this.#locks.delete(name)
    lock.holder = next.owner
    this.#waitsFor.delete(next.owner)
    next.resolve()
  }

  /** Ends a wait from outside: the connection was ended. */
  giveUp(owner: object, error: Error): void {
    const name = this.#waitsFor.get(owner)
    if (name === undefined) return
    this.#waitsFor.delete(owner)
    const { waiters } = this.#locks.get(name)!
    const at = waiters.findIndex((waiter) => waiter.owner === owner)
    const [waiter] = waiters.splice(at, 1)
    waiter!.reject(error)
  }

  #leadsTo(from: object, to: object): boolean {
    for (let owner: object | undefined = from; owner; ) {
      if (owner === to) return true
      const name: string | undefined = this.#waitsFor.get(owner)
      owner = name === undefined ? undefined : this.#locks.get(name)?.holder
    }
    return false
  }
}
