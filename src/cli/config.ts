import { columns } from './help.ts'
import { command } from './command.ts'
import { print, printJson } from './output.ts'

export const config = command({
  summary: 'List the settings, their values and where each comes from',
  options: { json: { describe: 'write JSON' } },
  examples: ['kerp config', 'KERP_PORT=3001 kerp config --json'],
  async run({ options: { json } }) {
    const { listConfig, readConfig } = await import('../app/config.ts')
    const lines = listConfig()
    if (json) printJson(lines)
    else
      print(
        columns(
          lines.map(({ name, value, from, describe }) => [`${name}=${value ?? ''}`, `${from.padEnd(13)}${describe}`]),
        ),
      )
    // Shown first, so that what is wrong can be seen beside everything else.
    readConfig()
  },
})
