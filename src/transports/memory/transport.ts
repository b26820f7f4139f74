import type { PublishResult, Transport } from '../../engine/transport.ts'
import { sleep } from '../../kernel/clock.ts'
import type { Envelope } from '../../kernel/envelope.ts'
import { KerpError, toError } from '../../kernel/errors.ts'
import type { MemoryBroker, MemoryBrokerOptions } from './broker.ts'
import { memoryBroker } from './broker.ts'
import type { MemoryConsumer } from './consumer.ts'
import { startConsumer } from './consumer.ts'
import type { MemoryFaults, PublishFault } from './faults.ts'
import { createLink } from './link.ts'

/** A broker that several transports share, or what one of its own is to be like. */
export type MemoryTransportOptions = { faults?: MemoryFaults } & (
  | ({ broker?: undefined } & MemoryBrokerOptions)
  | { broker: MemoryBroker }
)

/** A transport whose connection a test can take away. */
export interface MemoryTransport extends Transport {
  readonly broker: MemoryBroker
  /** The network is gone: nothing arrives, nothing gets out, heartbeats included. */
  disconnect(): void
  reconnect(): void
  /** The process is gone, without a word: what it held comes back when its lease has run out. */
  crash(): void
}

/**
 * A broker in this process's memory: for tests, for the simulator, and for trying things out. It does all that the contract
 * asks for, by the given clock only and without dice, so that a run can be repeated exactly.
 */
export function memoryTransport(options: MemoryTransportOptions = {}): MemoryTransport {
  const broker = options.broker ?? memoryBroker(options)
  const { clock, capabilities } = broker
  const faults = options.faults ?? {}
  const link = createLink(broker)
  const consumers = new Set<MemoryConsumer>()
  let closed = false

  function publishOne(envelope: Envelope, fault: PublishFault, signal: AbortSignal | undefined): PublishResult {
    if (signal?.aborted) return { ok: false, error: toError(signal.reason), retryable: true }
    if (!link.isUp() || fault.lose === 'request') return unreachable()
    const refusal = broker.accept(envelope)
    if (refusal) return { ok: false, error: refusal, retryable: false }
    if (fault.duplicate) broker.accept(envelope, { evenTwice: true })
    return fault.lose === 'answer' ? unreachable() : { ok: true }
  }

  function assertUsable(): void {
    if (closed) throw new KerpError('TRANSPORT_CLOSED', 'the memory transport is closed')
  }

  function assertReachable(): void {
    assertUsable()
    if (!link.isUp()) throw unreachable().error
  }

  return {
    name: 'memory',
    capabilities,
    broker,
    async ensure(topology, { dryRun = false } = {}) {
      assertReachable()
      return broker.ensure(topology, dryRun)
    },
    async publish(batch, signal) {
      assertUsable()
      const results: PublishResult[] = []
      for (const envelope of batch) {
        const fault = faults.onPublish?.(envelope) ?? {}
        // Without a delay in between, what is published together can be handed out together.
        if (fault.delayMs) await sleep(clock, fault.delayMs, signal)
        results.push(publishOne(envelope, fault, signal))
      }
      return results
    },
    consume(subscription, handle, given) {
      assertUsable()
      const { name } = subscription
      const setup = { name, queue: broker.queue(name), link, clock, faults, maxBatch: capabilities.maxBatch }
      const consumer = startConsumer(setup, handle, given)
      consumers.add(consumer)
      return consumer
    },
    async depth(subscription) {
      assertReachable()
      return broker.queue(subscription.name).depth()
    },
    async close() {
      if (closed) return
      closed = true
      await Promise.all([...consumers].map((consumer) => consumer.drain(0)))
      link.end()
      // Timers of messages that nobody will ask for would keep the process alive.
      if (!options.broker) broker.close()
    },
    disconnect: link.cut,
    reconnect: link.restore,
    crash() {
      closed = true
      link.end()
      for (const consumer of consumers) consumer.abandon()
    },
  }
}

function unreachable(): PublishResult & { ok: false } {
  const error = new KerpError('TRANSPORT_FAILED', 'the memory broker cannot be reached')
  return { ok: false, error, retryable: true }
}
