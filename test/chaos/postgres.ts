import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbeddedPostgres } from '../../src/engine/database/embedded/index.ts'

/** A server of a test's own, to be killed: the one all tests share must live. */
export interface KillablePostgres extends AsyncDisposable {
  readonly url: string
  /** As a machine that loses its power: nothing is said to anybody. */
  kill(): Promise<void>
  /** On the same port, with what had been committed. */
  revive(): Promise<void>
}

export async function killablePostgres(): Promise<KillablePostgres> {
  const folder = await mkdtemp(join(tmpdir(), 'kerp-chaos-'))
  const server = await openEmbeddedPostgres({ folder })
  return {
    url: server.url,
    async kill() {
      const [pid] = (await readFile(join(server.dataDir, 'postmaster.pid'), 'utf8')).split('\n')
      process.kill(Number(pid), 'SIGKILL')
    },
    revive: () => server.ensure(),
    async [Symbol.asyncDispose]() {
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
