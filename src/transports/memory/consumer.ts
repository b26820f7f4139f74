import type { ConsumeOptions, Consumer, Delivery, HandleBatch, Settlement } from '../../engine/transport.ts'
import type { Clock } from '../../kernel/clock.ts'
import { sleep } from '../../kernel/clock.ts'
import { milliseconds } from '../../kernel/duration.ts'
import { fromMessage } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import { exponential } from '../../engine/worker/retry.ts'
import type { HandOut, MemoryFaults } from './faults.ts'
import type { Link } from './link.ts'
import type { Change, Claim, Queue } from './queue.ts'

/** Without the usual dice: the simulator must be able to repeat a run. */
const retryAfterThrow = exponential('1s', { random: () => 0 })
/** Until a message whose dead letter could not be written is tried again. */
const unburiedRetryMs = 1000
/** For handlers to answer after a drain has aborted their signals. */
const lastWordMs = 250

export interface ConsumerSetup {
  readonly name: string
  readonly queue: Queue
  readonly link: Link
  readonly clock: Clock
  readonly faults: MemoryFaults
  readonly maxBatch: number
}

/** A message that counts against the limit: on its way to the handler, with it, or on its way back. */
interface Held {
  readonly claim: Claim
  readonly abort: AbortController
  started: boolean
  open: boolean
}

export interface MemoryConsumer extends Consumer {
  /** Its process is gone: no intake, and no word to anybody. */
  abandon(): void
}

type Verdict = readonly [held: Held, settlement: Settlement]

export function startConsumer(setup: ConsumerSetup, handle: HandleBatch, options: ConsumeOptions): MemoryConsumer {
  const { name, queue, link, clock, faults } = setup
  const leaseMs = milliseconds(options.lease)
  const onError = options.onError ?? (() => {})
  /** Those whose lease this consumer keeps alive. */
  const leased = new Map<number, Held>()
  const running = new Set<Promise<void>>()
  let state: 'open' | 'paused' | 'drained' = 'open'
  let inFlight = 0
  let cancelBeat: (() => void) | undefined

  function take(): boolean {
    const room = Math.min(options.batch, setup.maxBatch, options.inFlight - inFlight)
    if (state !== 'open' || room < 1 || !link.isUp()) return false
    const batch = queue.claim(room, leaseMs, lose).map(hold)
    if (batch.length === 0) return false
    deliver(batch)
    return true
  }

  function hold(claim: Claim): Held {
    const held: Held = { claim, abort: new AbortController(), started: false, open: true }
    leased.set(claim.token, held)
    inFlight++
    beatSoon()
    return held
  }

  /** The broker's half of the way to the handler, where things may go wrong. */
  function deliver(batch: Held[]): void {
    const fault = faults.onDeliver?.(batch.map(handOut)) ?? {}
    if (fault.duplicate) for (const { claim } of batch) queue.duplicate(claim.token)
    if (fault.lose) batch.forEach(letGo)
    else if (fault.delayMs) clock.after(fault.delayMs, () => arrive(batch))
    else arrive(batch)
  }

  function arrive(batch: Held[]): void {
    // What was given back or lost its lease on the way is somebody else's now.
    const here = batch.filter((held) => held.open)
    if (!link.isUp()) return here.forEach(letGo)
    for (const held of here) held.started = true
    if (here.length === 0) return
    const work = carryOut(here).finally(() => running.delete(work))
    running.add(work)
  }

  async function carryOut(batch: Held[]): Promise<void> {
    const verdicts: Verdict[] = []
    const asked: Held[] = []
    const deliveries: Delivery[] = []
    for (const held of batch) {
      try {
        deliveries.push(toDelivery(held))
        asked.push(held)
      } catch (error) {
        verdicts.push([held, { do: 'dead', reason: 'MESSAGE_UNREADABLE', error: toError(error) }])
      }
    }
    const settlements = await ask(deliveries)
    asked.forEach((held, at) => verdicts.push([held, settlements[at]!]))
    await settleAll(verdicts)
  }

  async function ask(deliveries: Delivery[]): Promise<Settlement[]> {
    if (deliveries.length === 0) return []
    try {
      const settlements = await handle(deliveries)
      if (settlements.length === deliveries.length) return settlements
      const counts = `${settlements.length} settlements for ${deliveries.length} messages`
      throw new KerpError('HANDLER_FAILED', `the handler of ${name} returned ${counts}`)
    } catch (thrown) {
      const error = toError(thrown)
      onError(error)
      return deliveries.map(({ attempt }) => ({
        do: 'retry',
        afterMs: retryAfterThrow(attempt),
        blame: 'message',
        error,
      }))
    }
  }

  /** All of a batch in one step, so that nobody sees its later messages free before an earlier one waits for its retry. */
  async function settleAll(verdicts: Verdict[]): Promise<void> {
    const settled = verdicts.map((verdict) => {
      const [, settlement] = verdict
      if (settlement.do === 'dead') return undefined
      if (settlement.do === 'ack') return settle(verdict, { do: 'remove' })
      return settle(verdict, { do: 'delay', ms: settlement.afterMs, countsAttempt: settlement.blame === 'message' })
    })
    for (const verdict of verdicts) if (verdict[1].do === 'dead') await bury(verdict)
    await Promise.all(settled)
  }

  async function bury(verdict: Verdict): Promise<void> {
    const [held, settlement] = verdict
    if (settlement.do !== 'dead') return
    // Whoever has the message now decides about it; a second letter would only confuse.
    if (!leased.has(held.claim.token)) return letGo(held)
    try {
      await options.deadLetter(deadLetterOf(name, held.claim, settlement))
    } catch (error) {
      onError(toError(error))
      return settle(verdict, { do: 'delay', ms: unburiedRetryMs, countsAttempt: false })
    }
    await settle(verdict, { do: 'remove' })
  }

  async function settle([held, settlement]: Verdict, change: Change): Promise<void> {
    const { token } = held.claim
    const fault = faults.onSettle?.(handOut(held), settlement) ?? {}
    // Once it is sent, the consumer is done with it: no heartbeat repairs a settlement that goes astray.
    if (fault.lose || fault.delayMs) leased.delete(token)
    if (fault.delayMs) await sleep(clock, fault.delayMs)
    if (!fault.lose) {
      if (!link.isUp()) await link.whenUp()
      if (link.isUp()) queue.settle(token, change)
    }
    letGo(held)
  }

  function letGo(held: Held): void {
    leased.delete(held.claim.token)
    if (!held.open) return
    held.open = false
    inFlight--
    queue.wake()
  }

  /** Somebody else may be working on it from now on. A handler that still does counts against the limit until it is done. */
  function lose(token: number): void {
    const held = leased.get(token)
    if (!held) return
    leased.delete(token)
    held.abort.abort(new KerpError('LEASE_LOST', `the lease of a message of ${name} is over`))
    if (!held.started) letGo(held)
  }

  function beatSoon(): void {
    if (leased.size > 0) cancelBeat ??= clock.after(leaseMs / 3, beat)
  }

  function beat(): void {
    cancelBeat = undefined
    if (link.isUp()) for (const token of leased.keys()) if (!queue.extend(token, leaseMs)) lose(token)
    beatSoon()
  }

  function returnUnstarted(): void {
    for (const held of leased.values()) {
      if (held.started) continue
      if (link.isUp()) queue.settle(held.claim.token, { do: 'give back' })
      letGo(held)
    }
  }

  const stopBeating = () => {
    cancelBeat?.()
    cancelBeat = undefined
  }

  const unlisten = link.onUp(() => {
    stopBeating()
    beat()
    queue.wake()
  })

  async function drain(graceMs: number): Promise<void> {
    state = 'drained'
    queue.detach(take)
    returnUnstarted()
    await finishWithin(graceMs)
    // What is still not answered is left to its lease: its handler may yet be at work, so nobody else should start at once.
    unlisten()
    stopBeating()
  }

  async function finishWithin(graceMs: number): Promise<void> {
    if (running.size === 0) return
    const { promise: over, resolve } = Promise.withResolvers<void>()
    const abortAll = () => {
      for (const held of leased.values()) held.abort.abort(new KerpError('WORKER_STOPPING', 'the worker is stopping'))
    }
    const calledOff = [clock.after(graceMs, abortAll), clock.after(graceMs + lastWordMs, resolve)]
    await Promise.race([over, Promise.all(running)])
    for (const cancel of calledOff) cancel()
  }

  const handOut = ({ claim }: Held): HandOut => ({
    subscription: name,
    eventId: eventIdOf(claim),
    attempt: claim.attempt,
  })

  queue.attach(take)
  return {
    pause() {
      if (state === 'open') state = 'paused'
      if (state === 'paused') returnUnstarted()
    },
    resume() {
      if (state === 'paused') state = 'open'
      queue.wake()
    },
    get inFlight() {
      return inFlight
    },
    drain,
    abandon() {
      state = 'drained'
      queue.detach(take)
      unlisten()
    },
  }
}

function toDelivery({ claim, abort }: Held): Delivery {
  return { envelope: fromMessage(claim.message), attempt: claim.attempt, signal: abort.signal }
}

function eventIdOf({ message }: Claim): string | undefined {
  try {
    return fromMessage(message).eventId
  } catch {
    return undefined
  }
}

function deadLetterOf(consumer: string, { message, attempt }: Claim, settlement: Settlement & { do: 'dead' }) {
  const { reason, error } = settlement
  const common = { consumer, reason, attempts: attempt, ...(error === undefined ? {} : { error }) }
  try {
    return { ...common, envelope: fromMessage(message) }
  } catch {
    return { ...common, raw: message.body }
  }
}
