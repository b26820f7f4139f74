import { parentPort } from 'node:worker_threads'
import { simulate } from './run.ts'

/** One of the threads that seeds are dealt out to: is sent a seed and whether to be strict, and answers with the outcome. */
parentPort!.on('message', ({ seed, strict }: { seed: number; strict: boolean }) => {
  void simulate(seed, { strict }).then((outcome) => parentPort!.postMessage(outcome))
})
