import type { Overrides } from '../app/config.ts'
import { command, toNumber, UsageError } from './command.ts'

export const start = command({
  summary: 'Run the API, the relay and the workers, with a PostgreSQL of its own unless DATABASE_URL names one',
  options: {
    role: { value: 'roles', describe: 'what this process does: api, relay, worker, with commas between (KERP_ROLES)' },
    port: { value: 'number', describe: 'port of the HTTP API (KERP_PORT)' },
    demo: { describe: 'hire people steadily, to see something happen' },
    rate: { value: 'number', describe: 'how many a second with --demo (5)' },
  },
  examples: [
    'npm start',
    'npm start -- --demo --rate 50',
    'kerp start --port 3001',
    'DATABASE_URL=postgres://… kerp start --role worker',
  ],
  async run({ options }) {
    if (options.rate !== undefined && !options.demo) throw new UsageError('--rate goes with --demo')
    const demoRate = options.demo ? toNumber('rate', options.rate ?? '5', { min: 1, max: 10_000 }) : undefined
    const flags: Overrides = {
      ...(options.role === undefined ? {} : { KERP_ROLES: options.role }),
      ...(options.port === undefined ? {} : { KERP_PORT: options.port }),
    }
    const { readConfig } = await import('../app/config.ts')
    const config = readConfig(flags)
    const { serve } = await import('../app/serve.ts')
    return serve(config, { demoRate })
  },
})
