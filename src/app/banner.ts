import type { Config } from './config.ts'
import type { App } from './start.ts'
import { version } from './version.ts'

/** What somebody who has just started it wants to know. */
export function banner({ address, embeddedVersion }: App, { dataDir, roles }: Config): string {
  const where = embeddedVersion ? `${dataDir} (PostgreSQL ${embeddedVersion})` : 'in the PostgreSQL of DATABASE_URL'
  const lines = [
    '',
    `  kerp ${version} is running${address ? ` at ${address}` : ''}`,
    '',
    ...(address && roles.includes('api') ? whatToTry(address) : []),
    `  Data           ${where}`,
    `  Does           ${roles.join(', ')}`,
    '  Stop           Ctrl-C',
    '',
    '',
  ]
  return lines.join('\n')
}

function whatToTry(address: string): string[] {
  const somebody = '{"name":"김하늘","annualSalary":42000000,"joinedOn":"2026-03-02"}'
  return [
    `  Hire           curl ${address}/api/v1/employees --json '${somebody}'`,
    `  See the effect curl ${address}/api/v1/payroll/accounts`,
    '  Follow along   npm run kerp -- events tail --follow',
    '  Let it live    npm start -- --demo',
    '',
  ]
}
