import { randomInt } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { KerpError } from '../../../kernel/errors.ts'
import { host } from './connect.ts'
import { ownServerHint } from './binaries.ts'

/** Below the ports that systems give to outgoing connections: one of those would sooner or later be on ours. */
const first = 20_000
const last = 29_999

/** The port of last time if it is free, else a new one, which is then remembered. */
export async function choosePort(file: string, taken: ReadonlySet<number>): Promise<number> {
  const remembered = Number.parseInt(await readFile(file, 'utf8').catch(() => ''), 10)
  if (remembered > 1023 && remembered < 65_536 && !taken.has(remembered) && (await isFree(remembered)))
    return remembered
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(first, last + 1)
    if (taken.has(port) || !(await isFree(port))) continue
    await writeFile(file, `${port}\n`)
    return port
  }
  throw new KerpError('EMBEDDED_UNAVAILABLE', `No port is free on ${host} for PostgreSQL`, { hint: ownServerHint })
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const listener = createServer()
    listener.once('error', () => resolve(false))
    listener.listen({ port, host, exclusive: true }, () => listener.close(() => resolve(true)))
  })
}
