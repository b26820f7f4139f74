import { readConfig } from '../../src/app/config.ts'
import type { Module } from '../../src/app/modules.ts'
import { migrations, modules } from '../../src/app/modules.ts'
import { serve } from '../../src/app/serve.ts'
import type { Database } from '../../src/engine/database/database.ts'
import type { Tx } from '../../src/engine/database/transaction.ts'
import { fixed } from '../../src/engine/worker/retry.ts'
import type { Event } from '../../src/engine/worker/subscription.ts'
import { on } from '../../src/engine/worker/subscription.ts'
import { sleep, systemClock } from '../../src/kernel/clock.ts'
import { Asked, takeEffect } from './engine.ts'

/**
 * The app as it is, as a process of its own, with those consumers more that its arguments name: `chaos.actor` handles and
 * `chaos.caller` performs, each in the way its event asks for. The test makes their tables.
 */
const crash = () => process.kill(process.pid, 'SIGKILL')

const acts: Record<string, (event: Event<Asked>, tx: Tx) => unknown> = {
  exit: () => process.exit(3),
  async 'exit-later'(_, tx) {
    await tx.sql`select 1`
    process.exit(3)
  },
  flaky({ attempt }) {
    if (attempt === 1) throw new Error('not at the first attempt')
  },
  async 'swallow-once'({ attempt }, tx) {
    if (attempt === 1) await tx.sql`select 1 / 0`.catch(() => {})
  },
  'hang-once': ({ attempt }) => (attempt === 1 ? new Promise(() => {}) : undefined),
  async 'leak-later'(_, tx) {
    void sleep(systemClock, 100).then(
      () => tx.sql`insert into effects (consumer, key, number) values ('leak', 'leak', 0)`,
    )
  },
  slow: (_, tx) => tx.sql`select pg_sleep(0.1)`,
  crash,
}

const actor = on(Asked, {
  name: 'chaos.actor',
  attempts: 3,
  deadline: '3s',
  retry: fixed(10),
  async handle(event, tx) {
    await acts[event.data.act]?.(event, tx)
    await takeEffect(tx, 'chaos.actor', event.data, String(process.pid))
  },
})

const caller = (database: Database) =>
  on(Asked, {
    name: 'chaos.caller',
    attempts: 3,
    retry: fixed(10),
    lease: '1s',
    async perform({ data: { number, act } }, { idempotencyKey }) {
      // The outside world: what happened there stays, whatever becomes of us.
      const calls = await database.sql<{ count: number }>`
        with called as (insert into calls (number, idempotency_key) values (${number}, ${idempotencyKey}))
        select count(*)::int as count from calls where number = ${number}`
      if (act === 'call-slow') await sleep(systemClock, 500)
      if (act === 'call-crash' || (act === 'call-crash-once' && calls[0]?.count === 0)) crash()
      return number
    },
    commit: (_, tx, { data }) => takeEffect(tx, 'chaos.caller', data, String(process.pid)),
  })

const chaos: Module = {
  name: 'chaos',
  migrations: migrations[0]!,
  events: [Asked],
  handlers: ({ database }) => [actor, caller(database)].filter(({ name }) => process.argv.includes(name)),
  routes: () => [],
}

// The one list of what the app is made of; here it is made of one thing more.
;(modules as Module[]).push(chaos)
process.exit(await serve(readConfig({ KERP_ROLES: 'worker' })))
