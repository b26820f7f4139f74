import { command } from './command.ts'
import { print, printJson, say } from './output.ts'

export const migrate = command({
  summary: 'Bring the database up to date; starting does it too',
  options: {
    plan: { describe: 'only list what would run' },
    json: { describe: 'write JSON' },
  },
  examples: ['kerp migrate --plan', 'DATABASE_URL=postgres://… kerp migrate'],
  async run({ options: { plan, json } }) {
    const { readConfig } = await import('../app/config.ts')
    const { runMigrations } = await import('../app/operations.ts')
    const { migrations } = await runMigrations(readConfig(), { planOnly: plan, say })
    if (json) return printJson({ [plan ? 'planned' : 'ran']: migrations })
    if (migrations.length === 0) return print('nothing to do: the database is up to date')
    for (const name of migrations) print(`${plan ? 'would run' : 'ran'} ${name}`)
  },
})
