import { parentPort } from 'node:worker_threads'
import { simulate } from './run.ts'

/** One of the threads that seeds are dealt out to: is sent a seed, and answers with the outcome. */
parentPort!.on('message', (seed: number) => {
  void simulate(seed).then((outcome) => parentPort!.postMessage(outcome))
})
