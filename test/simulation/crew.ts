import { Worker } from 'node:worker_threads'
import type { Outcome } from './run.ts'

export interface CrewOptions {
  from: number
  seeds: number
  threads: number
  onOutcome: (outcome: Outcome) => 'go on' | 'stop'
}

/** Deals the seeds out to threads, in order. Runs share nothing, so it makes no difference to them where they run. */
export async function runSeeds({ from, seeds, threads, onOutcome }: CrewOptions): Promise<void> {
  let next = from
  let stopped = false

  async function work(): Promise<void> {
    const worker = new Worker(new URL('./thread.ts', import.meta.url))
    try {
      while (!stopped && next < from + seeds) {
        const outcome = await ask(worker, next++)
        if (!stopped && onOutcome(outcome) === 'stop') stopped = true
      }
    } finally {
      await worker.terminate()
    }
  }

  await Promise.all(Array.from({ length: Math.min(threads, seeds) }, work))
}

function ask(worker: Worker, seed: number): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const failed = (error: unknown) => reject(new Error(`seed ${seed} broke the simulator itself`, { cause: error }))
    worker.once('error', failed)
    worker.once('message', (outcome: Outcome) => {
      worker.off('error', failed)
      resolve(outcome)
    })
    worker.postMessage(seed)
  })
}
