import { z } from 'zod'
import { defineEvent } from '../../src/kernel/event.ts'

const trouble = z.object({
  consumer: z.string(),
  kind: z.enum(['refuse', 'stumble', 'break a rule', 'swallow', 'not now', 'hang', 'outage', 'fail at commit']),
  times: z.number(),
})

/** What an event does to one of its consumers, so many times. */
export type Trouble = z.output<typeof trouble>

/** `step`: the how-many-th of its key, in the order of the commits. */
const common = { step: z.number(), trouble: trouble.optional(), filler: z.string().optional() }

export const OrderPlaced = defineEvent('order.placed', {
  data: z.object({ ...common, order: z.string() }),
  key: ({ order }) => order,
})

export const StockMoved = defineEvent('stock.moved', {
  data: z.object({ ...common, shelf: z.string() }),
  key: ({ shelf }) => shelf,
})

export const InvoiceAsked = defineEvent('invoice.asked', {
  data: z.object({ ...common, customer: z.string() }),
  key: ({ customer }) => customer,
})

export const NoteTaken = defineEvent('note.taken', { data: z.object(common) })

/** Nobody is subscribed to it. */
export const DoorOpened = defineEvent('door.opened', { data: z.object(common) })

export type EventData = { step: number; trouble?: Trouble | undefined; filler?: string | undefined }

/** No broker of the simulation takes an event with this filler. */
export const maxBytes = 2000
export const tooMuch = 'x'.repeat(maxBytes)
