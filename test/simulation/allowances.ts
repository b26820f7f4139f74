/**
 * Bugs of the engine that are known and not fixed yet: the verdict leaves out exactly these. False shows the seeds again; each goes
 * with its bug, and this file with the last.
 */
export const allowances: Readonly<Record<'failed confirmation' | 'dead before others in a batch of calls', boolean>> = {
  /** Relay: rows whose confirmation failed stay in the outbox, although published, until something else of their shard is. */
  'failed confirmation': true,
  /** `perform`, with batches of several: what follows a dead verdict of its key goes ahead before the letter is written. */
  'dead before others in a batch of calls': true,
}
