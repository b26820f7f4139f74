import { emit } from '../../src/engine/outbox/emit.ts'
import type { EmitOptions } from '../../src/engine/outbox/emit.ts'
import type { Tx } from '../../src/engine/database/transaction.ts'
import { exponential, notNow, permanent } from '../../src/engine/worker/retry.ts'
import type { Event, EventSubscription } from '../../src/engine/worker/subscription.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import type { EventType } from '../../src/kernel/event.ts'
import type { Effect } from './database/transaction.ts'
import type { EventData, Trouble } from './events.ts'
import { InvoiceAsked, NoteTaken, OrderPlaced, StockMoved } from './events.ts'
import { attempts } from './plan.ts'
import type { SimProcess } from './process.ts'
import { hash } from './random.ts'
import type { World } from './world.ts'

/** Who consumes what, for those who only need to know that. */
export const consumersOf: Readonly<Record<string, readonly string[]>> = {
  [OrderPlaced.name]: ['stock', 'ledger'],
  [StockMoved.name]: ['shelf'],
  [InvoiceAsked.name]: ['invoicer'],
  [NoteTaken.name]: ['notes', 'mailer'],
}

export const performers: ReadonlySet<string> = new Set(['invoicer', 'mailer'])

/** The handlers of one process. */
export function subscriptionsFor(world: World, process: SimProcess, emitOptions: EmitOptions): EventSubscription[] {
  const retry = exponential('100ms', { max: '2s', random: () => world.dice.fraction() })
  const common = (name: string) => ({ name, attempts, retry })
  const act = (consumer: string, event: Event<EventData>) => dueTrouble(world, consumer, event)

  return [
    on(OrderPlaced, {
      ...common('stock'),
      deadline: '60s',
      async handle(event, tx) {
        await takeEffect(tx, 'stock', event)
        await cause(act('stock', event), tx)
        const shelf = `shelf-${hash(event.eventId) % 2}`
        await emit(tx, StockMoved, { step: await nextStep(tx, shelf), shelf }, emitOptions)
      },
    }),
    on(OrderPlaced, {
      ...common('ledger'),
      deadline: '60s',
      // Sends its statement and does not wait for it, as a handler may.
      handle(event, tx) {
        const trouble = act('ledger', event)
        void takeEffect(tx, 'ledger', event)
        if (trouble) return cause(trouble, tx)
        return undefined
      },
    }),
    on(StockMoved, {
      ...common('shelf'),
      deadline: '60s',
      // Not every one takes as many steps: side by side they would overtake each other.
      async handle(event, tx) {
        act('shelf', event)
        if (event.data.step % 2) await tx.query('look around')
        await takeEffect(tx, 'shelf', event)
      },
    }),
    on(NoteTaken, {
      ...common('notes'),
      deadline: '20s',
      async handle(event, tx) {
        await cause(act('notes', event), tx)
        await takeEffect(tx, 'notes', event)
      },
    }),
    on(InvoiceAsked, {
      ...common('invoicer'),
      deadline: '5s',
      perform: (event, call) => world.outside.call(process, 'invoicer', call, act('invoicer', event)),
      async commit(answer, tx, event) {
        await takeEffect(tx, 'invoicer', event, answer)
        await cause(act('invoicer at commit', event), tx)
        await emit(tx, NoteTaken, { step: 0 }, emitOptions)
      },
    }),
    on(NoteTaken, {
      ...common('mailer'),
      deadline: '5s',
      perform: (event, call) => world.outside.call(process, 'mailer', call, act('mailer', event)),
      async commit(answer, tx, event) {
        await takeEffect(tx, 'mailer', event, answer)
        await cause(act('mailer at commit', event), tx)
      },
    }),
  ]
}

function takeEffect(tx: Tx, consumer: string, event: Event<EventData>, answer?: string): Promise<unknown> {
  const { eventId, key, data } = event
  const effect: Effect = { consumer, eventId, key, step: data.step, answer }
  return tx.query('take effect', [effect])
}

export async function nextStep(tx: Pick<Tx, 'query'>, key: string): Promise<number> {
  const { rows } = await tx.query('next step of a key', [key])
  return rows[0] as number
}

/** The trouble that the event is to this consumer at this attempt, counted across all processes. */
function dueTrouble(world: World, consumer: string, event: Event<EventData>): Trouble['kind'] | undefined {
  world.checker.tried(consumer, event)
  const { eventId, data } = event
  const { trouble } = data
  const at = trouble?.kind === 'fail at commit' ? `${trouble.consumer} at commit` : trouble?.consumer
  if (!trouble || at !== consumer) return undefined
  const met = (world.troubles.get(`${consumer} ${eventId}`) ?? 0) + 1
  world.troubles.set(`${consumer} ${eventId}`, met)
  return trouble.kind === 'refuse' || met <= trouble.times ? trouble.kind : undefined
}

async function cause(trouble: Trouble['kind'] | undefined, tx: Tx): Promise<void> {
  if (trouble === undefined) return
  if (trouble === 'refuse') throw permanent('it will never do')
  if (trouble === 'not now') throw notNow(300)
  if (trouble === 'hang') await new Promise(() => {})
  if (trouble === 'break a rule') await tx.query('break a rule')
  else if (trouble === 'swallow') await tx.query('break a rule').catch(() => {})
  else throw new Error('it stumbled')
}

export const troublesOf = {
  handle: ['refuse', 'stumble', 'break a rule', 'swallow', 'not now', 'hang'],
  perform: ['refuse', 'outage', 'not now', 'hang', 'fail at commit'],
} as const

export type AnyEventType = EventType<any>
