import { command } from './command.ts'
import { operate } from './operate.ts'
import { ms, print, printJson, printTable } from './output.ts'

export const outbox = command({
  summary: 'See what is still to do, and since when',
  options: { json: { describe: 'write JSON' } },
  examples: ['kerp outbox', 'kerp outbox --json | jq .deadLetters'],
  async run({ options: { json } }) {
    const depth = await operate((operations) => operations.depth())
    if (json) return printJson(depth)
    const { outbox, consumers, deadLetters, oldestTransactionMs } = depth
    print(
      `not yet handed to the broker: ${outbox.rows}${outbox.rows ? `, the oldest for ${ms(outbox.oldestAgeMs)}` : ''}`,
    )
    print(`dead letters: ${deadLetters}`)
    print(`oldest open transaction: ${ms(oldestTransactionMs) ?? 'none'}\n`)
    if (consumers.length === 0) return print('no worker has been started yet, so there are no consumers')
    const rows = consumers.map((row) => [row.consumer, row.ready, row.running, row.waiting, ms(row.oldestAgeMs)])
    printTable(['consumer', 'ready', 'running', 'waiting', 'oldest'], rows)
  },
})
