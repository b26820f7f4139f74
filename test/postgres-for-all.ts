import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbeddedPostgres } from '../src/engine/database/embedded/index.ts'

/** One server for all tests that only need a database of their own on it; a given `KERP_TEST_DATABASE_URL` wins. */
export default async function setup(): Promise<(() => Promise<void>) | undefined> {
  if (process.env['KERP_TEST_DATABASE_URL']) return undefined
  const folder = await mkdtemp(join(tmpdir(), 'kerp-test-'))
  const server = await openEmbeddedPostgres({ folder })
  process.env['KERP_TEST_DATABASE_URL'] = server.url
  return async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}
