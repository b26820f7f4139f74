import type { Queryable } from '../../src/engine/database/connection.ts'
import type { Tx } from '../../src/engine/database/transaction.ts'
import type { EmitOptions } from '../../src/engine/outbox/emit.ts'
import { emit, emitAll } from '../../src/engine/outbox/emit.ts'
import { sleep } from '../../src/kernel/clock.ts'
import { nextStep, troublesOf } from './consumers.ts'
import { SimPool } from './database/pool.ts'
import type { EventData, Trouble } from './events.ts'
import { DoorOpened, InvoiceAsked, NoteTaken, OrderPlaced, tooMuch } from './events.ts'
import type { SimProcess } from './process.ts'
import type { Running } from './programs.ts'
import { emitOptionsOf } from './programs.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

/** Transactions that are still to be made, by all lives of one API program. */
export interface Work {
  left: number
}

class ChangedItsMind extends Error {}

/** Several clients side by side that change things and emit what they did. */
export function runApiProgram(world: World, process: SimProcess, work: Work): Running {
  const pool = new SimPool(process, world.server, world.faults)
  const dice = world.dice.fork(process.name)
  const emitOptions = emitOptionsOf(world, process)
  let stopped = false

  async function client(): Promise<void> {
    while (!stopped && work.left > 0) {
      work.left--
      await sleep(process.clock, dice.between(0, world.plan.pauseMs))
      await pool
        .transaction((tx) => change(world, process, dice, tx, emitOptions))
        .catch((error: Error) => world.note(process.name, `transaction failed: ${error.message}`))
    }
  }

  const clients = Array.from({ length: world.plan.clientsPerApi }, client)
  return {
    stop() {
      stopped = true
      return Promise.all(clients)
    },
  }
}

async function change(
  world: World,
  process: SimProcess,
  dice: Random,
  tx: Tx,
  emitOptions: EmitOptions,
): Promise<void> {
  const { plan } = world
  // Any client's transaction will do for emit, not only one of ours.
  const on: Tx | Queryable = dice.chance(0.3) ? { query: (text, values) => tx.query(text, values) } : tx
  for (let count = dice.between(1, 3); count > 0; count--) {
    await emitOne(plan.keys, plan.troubled, dice, tx, on, emitOptions)
    // One that takes long, with ids that were handed out before those of its neighbours.
    if (dice.chance(0.12)) await sleep(process.clock, dice.between(100, 4000))
  }
  if (dice.chance(0.1)) throw new ChangedItsMind('rolled back')
}

async function emitOne(
  keys: number,
  troubled: number,
  dice: Random,
  tx: Tx,
  on: Tx | Queryable,
  emitOptions: EmitOptions,
): Promise<void> {
  const kind = dice.fraction()
  const extra = (handling: readonly string[], performing: readonly string[]): Partial<EventData> => {
    if (dice.chance(0.02)) return { filler: tooMuch }
    return dice.chance(troubled) ? { trouble: drawTrouble(dice, handling, performing) } : {}
  }
  if (kind < 0.55) {
    const order = `order-${dice.between(1, keys)}`
    const place = async () => ({ step: await nextStep(tx, order), order, ...extra(['stock', 'ledger'], []) })
    const first = await place()
    if (dice.chance(0.3)) {
      await emitAll(
        on,
        [
          [OrderPlaced, first],
          [OrderPlaced, await place()],
        ],
        emitOptions,
      )
    } else await emit(on, OrderPlaced, first, emitOptions)
  } else if (kind < 0.8) {
    const customer = `customer-${dice.between(1, keys)}`
    const step = await nextStep(tx, customer)
    await emit(on, InvoiceAsked, { step, customer, ...extra([], ['invoicer']) }, emitOptions)
  } else if (kind < 0.96) {
    await emit(on, NoteTaken, { step: 0, ...extra(['notes'], ['mailer']) }, emitOptions)
  } else await emit(on, DoorOpened, { step: 0 }, emitOptions)
}

function drawTrouble(dice: Random, handling: readonly string[], performing: readonly string[]): Trouble {
  const consumer = dice.pick([...handling, ...performing])
  const kind = dice.pick<Trouble['kind']>(handling.includes(consumer) ? troublesOf.handle : troublesOf.perform)
  return { consumer, kind, times: kind === 'hang' ? 1 : dice.between(1, 8) }
}
