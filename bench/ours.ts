import type { DrainSubject, EmitSubject, LatencySubject } from './subjects.ts'

/** Our side of every benchmark: the engine behind the shapes of subjects.ts, one list per benchmark. */

export const drain: DrainSubject[] = [unwiredDrain('kerp', 'postgres transport, no-op handler')]

/** One row into bench_effects per message, exactly once. */
export const effects: DrainSubject[] = [unwiredDrain('kerp', 'postgres transport, handle with tx')]

export const latency: LatencySubject[] = [
  {
    name: 'kerp',
    settings: 'postgres transport, emit in the transaction',
    needs: ['postgres'],
    start: unwired,
    deliver: unwired,
    close: async () => {},
  },
]

/** One row into bench_business per transaction. */
export const emit: EmitSubject[] = [
  {
    name: 'kerp',
    settings: 'insert one row',
    needs: ['postgres'],
    start: unwired,
    transaction: unwired,
    close: async () => {},
  },
]

/** The first is compared with every following one: the same number of messages published without an outbox. */
export const relay: DrainSubject[] = [
  unwiredDrain('kerp relay', 'outbox rows to the transport'),
  unwiredDrain('windowed publish', "the transport's own publish"),
]

function unwiredDrain(name: string, settings: string): DrainSubject {
  return { name, settings, needs: ['postgres'], prepare: unwired, drain: unwired, close: async () => {} }
}

async function unwired(): Promise<never> {
  throw new Error('not wired yet')
}
