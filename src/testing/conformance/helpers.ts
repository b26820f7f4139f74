import type {
  ConsumeOptions,
  Consumer,
  Delivery,
  HandleInside,
  Settlement,
  Subscription,
  Transport,
} from '../../engine/transport.ts'
import type { Depth, DeadLetter } from '../../engine/transport.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { sleep, systemClock } from '../../kernel/clock.ts'
import { toError } from '../../kernel/errors.ts'
import { newId } from '../../kernel/ids.ts'
import type { WaitOptions } from '../wait.ts'
import { waitFor } from '../wait.ts'

export const ack: Settlement = { do: 'ack' }

export const retry = (afterMs: number, blame: 'message' | 'consumer' = 'message'): Settlement => ({
  do: 'retry',
  afterMs,
  blame,
})

/** What a test does with one message. A throw is a throw: on the leased way the whole batch's. */
export type Handler = (delivery: Delivery) => Settlement | Promise<Settlement>

/** Which of the two ways of consuming is under test. */
export type Way = 'leased' | 'inside'

/** One handing out of a message, as the handler saw it. */
export interface Seen extends Delivery {
  readonly at: number
  /** How it ended; undefined while it runs, or when its handler threw. */
  settlement?: Settlement
}

/** A consumer that remembers what it was given. */
export interface Collector extends Consumer {
  readonly seen: readonly Seen[]
  readonly letters: readonly DeadLetter[]
  readonly errors: readonly Error[]
  /** The most messages that were with the handler at one time. */
  readonly most: number
  /** Ids in the order they were handed out. */
  ids(): string[]
  /** Waits until `count` messages have been handed out. */
  waitFor(count: number, options?: WaitOptions): Promise<readonly Seen[]>
}

export interface CollectOptions extends Partial<Omit<ConsumeOptions, 'deadLetter'>> {
  deadLetter?: (letter: DeadLetter) => Promise<void>
}

export function collect(
  way: Way,
  transport: Transport,
  subscription: Subscription,
  handler: Handler,
  { deadLetter = async () => {}, ...given }: CollectOptions & { lease: number },
): Collector {
  const seen: Seen[] = []
  const letters: DeadLetter[] = []
  const errors: Error[] = []
  let most = 0
  let active = 0

  async function handle(delivery: Delivery): Promise<Settlement> {
    const one: Seen = { ...delivery, at: performance.now() }
    seen.push(one)
    one.settlement = await handler(delivery)
    return one.settlement
  }

  async function counted<T>(batch: readonly Delivery[], work: () => Promise<T>): Promise<T> {
    active += batch.length
    most = Math.max(most, active)
    try {
      return await work()
    } finally {
      active -= batch.length
    }
  }

  const options: ConsumeOptions = {
    inFlight: 10,
    batch: 1,
    parallel: 2,
    onError: (error) => void errors.push(error),
    ...given,
    async deadLetter(letter) {
      await deadLetter(letter)
      letters.push(letter)
    },
  }
  const consumer =
    way === 'leased'
      ? transport.consume(subscription, (batch) => counted(batch, () => byKey(batch, handle)), options)
      : transport.consumeInside!(subscription, inside(counted, handle), options)

  const ids = () => seen.map(({ envelope }) => envelope.eventId)
  return {
    seen,
    letters,
    errors,
    get most() {
      return most
    },
    ids,
    async waitFor(count, waiting) {
      await waitFor(() => seen.length >= count, {
        what: () => `${count} messages of ${subscription.name} handed out, so far ${seen.length}${lastOf(errors)}`,
        ...waiting,
      })
      return seen
    },
    pause: () => consumer.pause(),
    resume: () => consumer.resume(),
    drain: (graceMs) => consumer.drain(graceMs),
    get inFlight() {
      return consumer.inFlight
    },
  }
}

const lastOf = (errors: readonly Error[]) => (errors.length ? `; last error: ${errors.at(-1)!.message}` : '')

/** As the worker does it: keys side by side, one key's messages in turn, and after one that failed none behind it. */
async function byKey(batch: readonly Delivery[], handle: Handler): Promise<Settlement[]> {
  const settlements = new Map<Delivery, Settlement>()
  const lanes = Map.groupBy(batch, ({ envelope }) => envelope.key ?? envelope.eventId)
  const inTurn = async (lane: Delivery[]) => {
    for (const delivery of lane) {
      const settlement = await handle(delivery)
      settlements.set(delivery, settlement)
      if (settlement.do === 'retry') return
    }
  }
  // All of them, even when one throws: nothing of this batch may still run when the transport hears of the throw.
  const ends = await Promise.allSettled([...lanes.values()].map(inTurn))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return batch.map((delivery) => settlements.get(delivery) ?? retry(0, 'consumer'))
}

class Verdict extends Error {
  readonly settlement: Settlement
  constructor(settlement: Settlement) {
    super(settlement.do)
    this.settlement = settlement
  }
}

type Counted = <T>(batch: readonly Delivery[], work: () => Promise<T>) => Promise<T>

/** Inside a transaction a message is settled by its end: anything but an ack is thrown, and judged when it has been alone. */
function inside(counted: Counted, handle: Handler): HandleInside {
  const each = async (batch: readonly Delivery[]) => {
    for (const settlement of await byKey(batch, handle)) if (settlement.do !== 'ack') throw new Verdict(settlement)
  }
  return {
    apply: (batch) => counted(batch, () => each(batch)),
    judge(_delivery, error) {
      const settlement = error instanceof Verdict ? error.settlement : retry(50)
      return settlement.do === 'retry' ? { ...settlement, error: toError(error) } : settlement
    },
  }
}

let names = 0

/** A name nobody has used before, on a server that outlives the test run. */
export function freshName(what: string): string {
  return `conformance.${what}-${Date.now().toString(36)}-${process.pid.toString(36)}-${names++}`
}

export function newEnvelope(eventType: string, more: Partial<Envelope> = {}): Envelope {
  return {
    eventId: newId(),
    eventType,
    timestamp: new Date().toISOString(),
    data: {},
    version: 1,
    key: null,
    companyId: 'company-1',
    ...more,
  }
}

/** Work that takes a while: what a slow handler does. */
export const work = (ms: number): Promise<void> => sleep(systemClock, ms)

export const total = ({ ready, inFlight, delayed }: Depth): number => ready + inFlight + delayed

export function idsOf(envelopes: readonly Envelope[]): string[] {
  return envelopes.map(({ eventId }) => eventId)
}
