import { setTimeout } from 'node:timers/promises'
import type { EventLife, Operations, RecentEvent } from '../app/operations.ts'
import { KerpError } from '../kernel/errors.ts'
import { command, toNumber } from './command.ts'
import type { Group } from './command.ts'
import { operate } from './operate.ts'
import { ms, print, printJson, printTable } from './output.ts'

const tail = command({
  summary: 'Show the latest events, the newest last',
  options: {
    follow: { short: 'f', describe: 'go on with each new one, until Ctrl-C' },
    type: { value: 'event', describe: 'only of this type' },
    limit: { value: 'number', describe: 'how many (20)' },
    json: { describe: 'write one JSON object a line' },
  },
  examples: [
    'kerp events tail',
    'kerp events tail --follow --type employee.created',
    'kerp events tail --json | jq .data',
  ],
  async run({ options }) {
    const limit = toNumber('limit', options.limit ?? '20', { min: 1, max: 1000 })
    const type = options.type === undefined ? {} : { type: options.type }
    const show = (events: readonly RecentEvent[]) =>
      events.forEach((event) => print(options.json ? JSON.stringify(event) : lineOf(event)))
    await operate(async (operations) => {
      const latest = (await operations.recentEvents({ ...type, limit })).reverse()
      show(latest)
      if (options.follow) await follow(operations, { ...type, seen: latest.map(({ eventId }) => eventId) }, show)
    })
  },
})

const show = command({
  summary: 'Show the life of one event: where it went, what became of it, and how long each step took',
  args: ['<eventId>'],
  options: { json: { describe: 'write JSON' } },
  examples: ['kerp events show 01981c6e-0f3a-7b52-9c1d-2f0e8a6b4c11', 'kerp events show 01981c6e-… --json'],
  async run({ options: { json }, args: [eventId = ''] }) {
    const life = await operate((operations) => operations.lifeOfEvent(eventId))
    if (!life)
      throw new KerpError('NOT_FOUND', `there is no event ${eventId}`, {
        hint: 'see the latest with: kerp events tail',
      })
    if (json) printJson(life)
    else printLife(life)
  },
})

export const events: Group = { summary: 'See what happens, and the life of one event', commands: { tail, show } }

function lineOf({ emittedAt, eventType, eventId, companyId, data }: RecentEvent): string {
  return `${emittedAt}  ${eventType}  ${eventId}  ${companyId}  ${JSON.stringify(data)}`
}

const pageSize = 500
/** Hints may be lost; then it is a moment later. */
const lookEveryMs = 1_000
/** Under load there is a hint every millisecond, and nobody reads that fast. */
const restMs = 200
/** Ids are made before the commit, so an event may appear below those already shown: so many are looked at again. */
const overlap = 2_000

type Read = (after: string) => Promise<RecentEvent[]>

async function follow(
  operations: Operations,
  { seen, ...type }: { seen: readonly string[]; type?: string },
  show: (events: readonly RecentEvent[]) => void,
): Promise<void> {
  const over = new AbortController()
  const end = () => over.abort()
  process.once('SIGINT', end).once('SIGTERM', end)
  let hinted = Promise.withResolvers<void>()
  const unlisten = await operations.onEvents(() => hinted.resolve())
  const look = lookForNew((after) => operations.recentEvents({ after, limit: pageSize, ...type }), seen)
  while (!over.signal.aborted) {
    hinted = Promise.withResolvers()
    for await (const events of look()) show(events)
    await wait(restMs, over.signal)
    await Promise.race([hinted.promise, wait(lookEveryMs, over.signal)])
  }
  await unlisten()
}

/** Each call reads everything that is new, however many pages that takes. */
function lookForNew(read: Read, seen: readonly string[]): () => AsyncGenerator<RecentEvent[]> {
  let shown = new Set(seen)
  let start = seen[0] ?? '00000000-0000-0000-0000-000000000000'

  return async function* () {
    let after = start
    let page: RecentEvent[]
    do {
      page = await read(after)
      yield page.filter(({ eventId }) => !shown.has(eventId))
      for (const { eventId } of page) shown.add(eventId)
      after = page.at(-1)?.eventId ?? after
    } while (page.length === pageSize)
    if (shown.size <= overlap) return
    const ids = [...shown].sort()
    start = ids.at(-overlap - 1)!
    shown = new Set(ids.slice(-overlap))
  }
}

async function wait(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch(() => {})
}

function printLife(life: EventLife): void {
  const { relayed } = life
  print(`${life.eventType}  ${life.eventId}`)
  print(`  company    ${life.companyId}`)
  print(`  key        ${life.key ?? '–'}`)
  print(`  version    ${life.version}`)
  print(`  emitted    ${life.emittedAt}`)
  print(`  relayed    ${relayed ? `${relayed.at} (after ${ms(relayed.afterMs)})` : 'not yet: it waits in the outbox'}`)
  if (life.traceparent) print(`  trace      ${life.traceparent}`)
  if (life.correlationId) print(`  request    ${life.correlationId}`)
  if (life.causationId) print(`  caused by  ${life.causationId}`)
  print(`  data       ${JSON.stringify(life.data)}\n`)
  if (life.consumers.length === 0) return print('  nobody is subscribed to it')
  const rows = life.consumers.map(({ consumer, state, attempts, waitedMs, tookMs, afterMs, lastError }) => [
    `  ${consumer}`,
    state,
    attempts,
    ms(waitedMs),
    ms(tookMs),
    ms(afterMs),
    lastError ?? '',
  ])
  printTable(['  consumer', 'state', 'attempts', 'waited', 'took', 'done after', 'last error'], rows)
  for (const { eventId, eventType } of life.caused) print(`  → ${eventType}  ${eventId}`)
}
