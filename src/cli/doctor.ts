import { command } from './command.ts'
import { print, printJson } from './output.ts'

export const doctor = command({
  summary: 'Check everything it needs and say what to do; exit code 1 when something fails',
  options: { json: { describe: 'write JSON' } },
  examples: ['kerp doctor', 'DATABASE_URL=postgres://… kerp doctor'],
  async run({ options: { json } }) {
    const { examine } = await import('../app/doctor.ts')
    const findings = await examine()
    const failed = findings.some(({ state }) => state === 'FAIL')
    if (json) printJson({ ok: !failed, findings })
    else {
      for (const { check, state, message, advice } of findings) {
        print(`${state.padEnd(5)} ${check.padEnd(13)} ${message}`)
        if (advice !== undefined) print(`      ${' '.repeat(13)} → ${advice}`)
      }
    }
    return failed ? 1 : 0
  },
})
