import { parentPort } from 'node:worker_threads'
import type { Allowance } from './allowances.ts'
import { simulate } from './run.ts'

/** One of the threads that seeds are dealt out to: is sent a seed and how strict to be, and answers with the outcome. */
parentPort!.on('message', ({ seed, strict }: { seed: number; strict: Allowance[] }) => {
  void simulate(seed, { strict }).then((outcome) => parentPort!.postMessage(outcome))
})
