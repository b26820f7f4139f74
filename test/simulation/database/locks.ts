import { sqlError } from './errors.ts'

/** Whoever takes locks, and the names of those it has. */
export interface LockOwner {
  readonly locks: string[]
}

interface Waiter {
  readonly owner: LockOwner
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

interface Lock {
  holder: LockOwner
  readonly waiters: Waiter[]
}

/** Locks on rows, and on keys that are being inserted. Held until the transaction ends; who comes second waits in line. */
export class Locks {
  readonly #locks = new Map<string, Lock>()
  readonly #waitsFor = new Map<LockOwner, string>()

  get count(): number {
    return this.#locks.size
  }

  async take(name: string, owner: LockOwner): Promise<void> {
    const lock = this.#locks.get(name)
    if (!lock) {
      this.#locks.set(name, { holder: owner, waiters: [] })
      owner.locks.push(name)
      return
    }
    if (lock.holder === owner) return
    if (this.#leadsTo(lock.holder, owner)) throw sqlError('40P01', 'deadlock detected')
    this.#waitsFor.set(owner, name)
    await new Promise<void>((resolve, reject) => lock.waiters.push({ owner, resolve, reject }))
  }

  release(name: string): void {
    const lock = this.#locks.get(name)
    if (!lock) return
    const next = lock.waiters.shift()
    if (!next) return void this.#locks.delete(name)
    lock.holder = next.owner
    next.owner.locks.push(name)
    this.#waitsFor.delete(next.owner)
    next.resolve()
  }

  /** Ends a wait from outside: the connection was ended. */
  giveUp(owner: LockOwner, error: Error): void {
    const name = this.#waitsFor.get(owner)
    if (name === undefined) return
    this.#waitsFor.delete(owner)
    const { waiters } = this.#locks.get(name)!
    const at = waiters.findIndex((waiter) => waiter.owner === owner)
    const [waiter] = waiters.splice(at, 1)
    waiter!.reject(error)
  }

  #leadsTo(from: LockOwner, to: LockOwner): boolean {
    for (let owner: LockOwner | undefined = from; owner;) {
      if (owner === to) return true
      const name: string | undefined = this.#waitsFor.get(owner)
      owner = name === undefined ? undefined : this.#locks.get(name)?.holder
    }
    return false
  }
}
