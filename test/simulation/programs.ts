import type { Database } from '../../src/engine/database/database.ts'
import { isConnectionError } from '../../src/engine/database/connection.ts'
import type { EmitOptions } from '../../src/engine/outbox/emit.ts'
import { postgresLeadership } from '../../src/engine/outbox/leadership.ts'
import { runRelay } from '../../src/engine/outbox/relay.ts'
import { silentObserver } from '../../src/engine/telemetry/observer.ts'
import type { Delivery, HandleBatch, Settlement } from '../../src/engine/transport.ts'
import { applyBatch } from '../../src/engine/worker/apply.ts'
import { handleWithInbox } from '../../src/engine/worker/handle.ts'
import { commitHalf, performThenCommit } from '../../src/engine/worker/perform.ts'
import { judge } from '../../src/engine/worker/retry.ts'
import type { EventSubscription } from '../../src/engine/worker/subscription.ts'
import { createIds } from '../../src/kernel/ids.ts'
import { KerpError, messageOf, toError } from '../../src/kernel/errors.ts'
import type { MemoryTransport } from '../../src/transports/memory/index.ts'
import { memoryTransport } from '../../src/transports/memory/index.ts'
import { subscriptionsFor } from './consumers.ts'
import { SimPool } from './database/pool.ts'
import { attempts } from './plan.ts'
import type { SimProcess } from './process.ts'
import { simDeadLetters, simInbox, simOutbox, simResults } from './stores.ts'
import type { World } from './world.ts'

/** A program while it runs: what can be cut off, and how it is asked to stop. */
export interface Running {
  readonly transport?: MemoryTransport
  stop(): Promise<unknown>
}

export function emitOptionsOf(world: World, process: SimProcess): EmitOptions {
  const dice = world.dice.fork(`ids of ${process.name}`)
  return { clock: process.clock, newId: createIds(process.clock, (bytes) => dice.fill(bytes)) }
}

export function runRelayProgram(world: World, process: SimProcess): Running {
  const { server, faults, broker, checker, note } = world
  const pool = new SimPool(process, server, faults)
  const transport = memoryTransport({ broker, faults: faults.memory(process) })
  process.atEnd(() => transport.crash())
  const onError = (error: Error) => note(process.name, `failed: ${error.message}`)
  const relay = runRelay({
    outbox: simOutbox(pool, simDeadLetters(world, process, pool)),
    leadership: postgresLeadership(pool as unknown as Database, process.clock, onError),
    observer: { ...silentObserver, failed: (_, error) => onError(error) },
    clock: process.clock,
    hints: { listen: (_, wake) => hintAfterCommits(world, process, wake) },
    transport: {
      ...transport,
      async publish(batch, signal) {
        await process.awake()
        for (const envelope of batch) checker.published(envelope)
        note(process.name, `publishes ${batch.map((envelope) => label(envelope)).join(', ')}`)
        const results = await transport.publish(batch, signal)
        if (faults.strikes('crash at an await', `${process.name} after publishing`)) process.kill()
        await process.awake()
        return results
      },
    },
  })
  return { transport, stop: () => relay.stop() }
}

function hintAfterCommits({ server, faults, clock }: World, process: SimProcess, wake: () => void): () => void {
  let listening = true
  server.onCommit((writes) => {
    if (!listening || !process.alive || !writes.some(({ table, row }) => table === 'outbox' && row)) return
    if (faults.strikes('hint lost', process.name)) return
    clock.after(faults.delayMs(), () => process.deliver(() => listening && wake()))
  })
  return () => void (listening = false)
}

export function runWorkerProgram(world: World, process: SimProcess): Running {
  const { server, faults, broker, plan, note } = world
  const pool = new SimPool(process, server, faults)
  const transport = memoryTransport({ broker, faults: faults.memory(process) })
  process.atEnd(() => transport.crash())
  const deadLetter = simDeadLetters(world, process, pool)
  const consumers = subscriptionsFor(world, process, emitOptionsOf(world, process)).map((subscription) =>
    transport.consume(
      { name: subscription.name, events: [subscription.type.name] },
      watched(world, process, subscription.name, (isAlone) =>
        buryWhatKills(handlerOf(world, process, pool, subscription, isAlone)),
      ),
      {
        batch: subscription.kind === 'perform' ? plan.performBatch : plan.batch,
        inFlight: plan.inFlight,
        lease: plan.leaseMs,
        parallel: 1,
        deadLetter,
        onError: (error) => note(process.name, `${subscription.name} failed: ${error.message}`),
      },
    ),
  )
  const graceMs = world.dice.fork(process.name).between(0, 3000)
  return { transport, stop: () => Promise.all(consumers.map((consumer) => consumer.drain(graceMs))) }
}

type IsAlone = (eventId: string) => boolean

/** As the engine's worker puts its parts together on a broker. */
function handlerOf(
  world: World,
  process: SimProcess,
  pool: SimPool,
  subscription: EventSubscription,
  isAlone: IsAlone,
): HandleBatch {
  const { name, kind, retry } = subscription
  const verdict = (delivery: Delivery, error: Error): Settlement => {
    if (isConnectionError(error)) return { do: 'retry', afterMs: 1000, blame: 'consumer', error }
    return judge(error, delivery.attempt, attempts, retry!)
  }
  const parts = {
    database: pool,
    inbox: simInbox(name),
    now: () => process.clock.now(),
    judge: verdict,
    done: () => {},
  }
  if (kind === 'handle') return handleWithInbox({ ...parts, apply: applyBatch(subscription, process.clock) })
  const results = simResults(world, process, pool, name, isAlone)
  const answers = new Map<Delivery, unknown>()
  const commit = handleWithInbox({
    ...parts,
    apply: commitHalf(subscription, { clock: process.clock, results, answers }),
  })
  return performThenCommit({ subscription, clock: process.clock, results, commit, judge: verdict, answers })
}

/** As the engine's worker does: what has used up its attempts without a verdict has killed those who tried it. */
function buryWhatKills(handle: HandleBatch): HandleBatch {
  return async (batch) => {
    const alive = batch.filter(({ attempt }) => attempt <= attempts)
    const settlements = alive.length ? await handle(alive) : []
    const error = new KerpError('HANDLER_CRASHED', 'its workers died while it was being handled')
    return batch.map((delivery) => settlements[alive.indexOf(delivery)] ?? { do: 'dead', reason: 'attempts', error })
  }
}

/** The handler between the transport's hand-out and its settlement, under the checker's eyes. */
function watched(
  { checker, faults, note }: World,
  process: SimProcess,
  name: string,
  make: (isAlone: IsAlone) => HandleBatch,
): HandleBatch {
  const underWay = new Map<string, number>()
  const count = (batch: readonly Delivery[], by: number) => {
    for (const { envelope } of batch) underWay.set(envelope.eventId, (underWay.get(envelope.eventId) ?? 0) + by)
  }
  const handle = make((eventId) => underWay.get(eventId) === 1)

  return async (batch) => {
    note(
      process.name,
      `${name} gets ${batch.map(({ envelope, attempt }) => `${label(envelope)}×${attempt}`).join(', ')}`,
    )
    count(batch, 1)
    try {
      const settlements = await handle(batch)
      if (faults.strikes('crash at an await', `${process.name} before settling`)) process.kill()
      await process.awake()
      note(
        process.name,
        `${name} settles ${settlements.map((each, at) => `${label(batch[at]!.envelope)} ${inWords(each)}`).join(', ')}`,
      )
      batch.forEach((delivery, at) => checker.settled(name, delivery, settlements[at]!))
      return settlements
    } catch (error) {
      checker.threw(name, toError(error))
      throw error
    } finally {
      count(batch, -1)
    }
  }
}

/** Short, and enough to follow an event through a trace. */
export function label({ eventId, eventType, key, data }: Delivery['envelope']): string {
  const step = key === null ? '' : ` ${key}#${(data as { step: number }).step}`
  return `${eventType}${step} …${eventId.slice(-4)}`
}

function inWords(settlement: Settlement): string {
  if (settlement.do === 'ack') return 'done'
  const why = settlement.error ? ` (${messageOf(settlement.error)})` : ''
  if (settlement.do === 'dead') return `dead${why}`
  return `again in ${settlement.afterMs} ms${settlement.blame === 'message' ? '' : ', no blame'}${why}`
}
