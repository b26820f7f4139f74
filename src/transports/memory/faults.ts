import type { Settlement } from '../../engine/transport.ts'
import type { Envelope } from '../../kernel/envelope.ts'

/**
 * Where a network and a broker go wrong. Each is asked once at its point and answers what happens there; nothing, when it has
 * no answer. The simulator draws the answers from its seed.
 */
export interface MemoryFaults {
  onPublish?(envelope: Envelope): PublishFault | undefined
  /** Once for each batch: it travels in one piece. */
  onDeliver?(batch: readonly HandOut[]): DeliverFault | undefined
  onSettle?(handOut: HandOut, settlement: Settlement): SettleFault | undefined
}

export interface HandOut {
  readonly subscription: string
  readonly eventId: string | undefined
  readonly attempt: number
}

export interface PublishFault {
  delayMs?: number
  /** 'request': the broker never hears of it. 'answer': the broker has it, and the publisher hears of a failure. */
  lose?: 'request' | 'answer'
  /** The broker takes it twice, as one without dedup would take a repeated publish. */
  duplicate?: boolean
}

export interface DeliverFault {
  /** The batch is on its way for so long: leased, not yet started. */
  delayMs?: number
  /** It never arrives, and comes back when its lease has run out. */
  lose?: boolean
  /** The broker hands each of them out once more. */
  duplicate?: boolean
}

export interface SettleFault {
  delayMs?: number
  /** The broker never hears of it; the consumer believes it done. */
  lose?: boolean
}
