import { createInterface } from 'node:readline/promises'
import { userInfo } from 'node:os'
import type { DeadLetterRow } from '../app/operations.ts'
import { KerpError } from '../kernel/errors.ts'
import { command, toNumber, UsageError } from './command.ts'
import type { Group } from './command.ts'
import { operate } from './operate.ts'
import { print, printJson, printTable, say } from './output.ts'

const states = ['dead', 'redriven', 'discarded'] as const
const json = { describe: 'write JSON' } as const
const consumer = { value: 'name', describe: "only this consumer's" } as const

const list = command({
  summary: 'List dead letters, the newest first',
  options: {
    consumer,
    state: { value: 'state', describe: `one of ${states.join(', ')} (dead)` },
    limit: { value: 'number', describe: 'how many (50)' },
    cursor: { value: 'cursor', describe: 'go on after the page before' },
    json,
  },
  examples: ['kerp dead list', 'kerp dead list --consumer payroll.employee.created --json'],
  async run({ options }) {
    const state = states.find((each) => each === (options.state ?? 'dead'))
    if (!state) throw new UsageError(`--state must be one of ${states.join(', ')}, not '${options.state}'`)
    if (options.cursor !== undefined) refuseNonIds([options.cursor])
    const limit = toNumber('limit', options.limit ?? '50', { min: 1, max: 1000 })
    const filter = {
      state,
      limit,
      ...(options.consumer ? { consumer: options.consumer } : {}),
      ...(options.cursor ? { cursor: options.cursor } : {}),
    }
    const page = await operate((operations) => operations.listDeadLetters(filter))
    if (options.json) return printJson(page)
    if (page.items.length === 0) return print('none')
    printTable(['id', 'consumer', 'event', 'attempts', 'died', 'why'], page.items.map(toCells))
    if (page.nextCursor) say(`more with --cursor ${page.nextCursor}`)
  },
})

const show = command({
  summary: 'Show one dead letter: the event as it came, and every error',
  args: ['<id>'],
  options: { json },
  examples: ['kerp dead show 01981c6e-0f3a-7b52-9c1d-2f0e8a6b4c11'],
  async run({ options, args }) {
    refuseNonIds(args)
    const letter = await operate((operations) => operations.showDeadLetter(args[0]!))
    if (!letter) throw new KerpError('NOT_FOUND', `there is no dead letter ${args[0]}`)
    if (options.json) return printJson(letter)
    print(`${letter.id}  ${letter.state}`)
    print(`  consumer  ${letter.consumer}`)
    print(`  event     ${letter.eventType ?? '–'}  ${letter.eventId ?? '–'}`)
    print(`  reason    ${letter.reason}, after ${letter.attempts} attempts, ${letter.diedAt.toISOString()}`)
    if (letter.resolvedBy) print(`  resolved  by ${letter.resolvedBy}, ${letter.resolvedAt?.toISOString()}`)
    for (const { name, message } of letter.error) print(`  error     ${name}: ${message}`)
    print(`  envelope  ${letter.envelope}`)
  },
})

const choice = {
  all: { describe: 'every one, or with --consumer every one of that consumer' },
  consumer,
  json,
} as const

const redrive = command({
  summary: 'Give dead letters to their consumer once more',
  args: ['[id…]'],
  options: choice,
  examples: [
    'kerp dead redrive 01981c6e-0f3a-7b52-9c1d-2f0e8a6b4c11',
    'kerp dead redrive --all --consumer payroll.employee.created',
  ],
  async run({ options, args }) {
    const chosen = choose(options, args)
    const redriven = await operate((operations) => inBatches(chosen, (batch) => operations.redriveDeadLetters(batch)))
    return tell('redriven', redriven, args, options.json)
  },
})

const discard = command({
  summary: 'Put dead letters aside for good; they stay listed as discarded',
  args: ['[id…]'],
  options: { ...choice, yes: { short: 'y', describe: 'do not ask' } },
  examples: [
    'kerp dead discard 01981c6e-0f3a-7b52-9c1d-2f0e8a6b4c11 --yes',
    'kerp dead discard --all --consumer payroll.employee.created',
  ],
  async run({ options, args }) {
    const chosen = choose(options, args)
    const what = args.length
      ? `${args.length} dead letters`
      : `all dead letters${options.consumer ? ` of ${options.consumer}` : ''}`
    if (!options.yes && !(await confirm(`Discard ${what}? Their effects will never happen.`))) {
      say('nothing was discarded')
      return 1
    }
    const discarded = await operate((operations) => inBatches(chosen, (batch) => operations.discardDeadLetters(batch)))
    return tell('discarded', discarded, args, options.json)
  },
})

export const dead: Group = {
  summary: 'Decide about events nobody could do',
  commands: { list, show, redrive, discard },
}

function toCells({ id, consumer, eventType, attempts, diedAt, reason, message }: DeadLetterRow) {
  return [id, consumer, eventType, attempts, diedAt.toISOString(), `${reason}: ${message}`.slice(0, 120)]
}

interface Chosen {
  ids?: readonly string[]
  consumer?: string
  by: string
}

function choose({ all, consumer }: { all: boolean; consumer: string | undefined }, ids: readonly string[]): Chosen {
  const by = `${userInfo().username} (kerp dead)`
  if (ids.length) {
    if (all || consumer !== undefined) throw new UsageError('name ids, or say --all, not both')
    refuseNonIds(ids)
    return { ids, by }
  }
  if (!all) throw new UsageError('name the ids, or say --all')
  return consumer === undefined ? { by } : { consumer, by }
}

function refuseNonIds(ids: readonly string[]): void {
  const wrong = ids.find((id) => !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id))
  if (wrong !== undefined) throw new UsageError(`'${wrong}' is not the id of a dead letter`)
}

const batchSize = 1000

/** A bounded number in each transaction, until none is left. */
async function inBatches(
  chosen: Chosen,
  work: (batch: Chosen & { limit: number }) => Promise<number>,
): Promise<number> {
  let total = 0
  for (;;) {
    const count = await work({ ...chosen, limit: batchSize })
    total += count
    if (count < batchSize) return total
  }
}

function tell(what: string, count: number, ids: readonly string[], asJson: boolean): number {
  if (asJson) printJson({ [what]: count })
  else print(`${count} ${what}`)
  if (count >= ids.length) return 0
  say(`${ids.length - count} of the ids are of no dead letter that waits for a decision`)
  return 1
}

async function confirm(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) throw new UsageError('there is nobody to ask here: add --yes to discard without a question')
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^(y|yes|예|네)$/i.test((await prompt.question(`${question} [y/N] `)).trim())
  } finally {
    prompt.close()
  }
}
