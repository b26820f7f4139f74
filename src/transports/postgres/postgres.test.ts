import { readFile, rm, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrate } from '../../engine/database/migrate.ts'
import { openDatabase } from '../../engine/database/database.ts'
import { openEmbeddedPostgres } from '../../engine/database/embedded/index.ts'
import { engineMigrations } from '../../engine/engine.ts'
import { startHints } from '../../engine/outbox/hints.ts'
import type { Transport } from '../../engine/transport.ts'
import { transportConformance } from '../../testing/conformance/index.ts'
import type { OpenSubject } from '../../testing/conformance/index.ts'
import { openProxy } from '../../testing/proxy.ts'
import { postgresTransport } from './index.ts'

transportConformance({ name: 'postgres', leaseMs: 1500, inside: true, open })

/** A server of its own, because the suite kills it. */
async function open(): Promise<OpenSubject> {
  const folder = await mkdtemp(join(tmpdir(), 'kerp-conformance-'))
  const server = await openEmbeddedPostgres({ folder })
  const wires = new Map<Transport, Awaited<ReturnType<typeof openProxy>>>()

  async function connect(url: string): Promise<Transport> {
    const database = await openDatabase({ url, max: 20 })
    await migrate(database, [engineMigrations])
    const hints = await startHints(database)
    const transport = postgresTransport({ database, hints })
    const connected: Transport = {
      ...transport,
      async close() {
        await transport.close()
        await hints.close()
        await database.close()
        await wires.get(connected)?.close()
      },
    }
    return connected
  }

  async function another(): Promise<Transport> {
    const url = new URL(server.url)
    const wire = await openProxy(Number(url.port))
    url.port = String(wire.port)
    const transport = await connect(url.toString())
    wires.set(transport, wire)
    return transport
  }

  const transport = await connect(server.url)
  return {
    transport,
    another,
    async restartBroker() {
      const [pid] = (await readFile(join(server.dataDir, 'postmaster.pid'), 'utf8')).split('\n')
      process.kill(Number(pid), 'SIGKILL')
      await server.ensure()
    },
    async crash(victim) {
      const wire = wires.get(victim)!
      wire.cut()
      return async () => wire.mend()
    },
    async close() {
      await transport.close()
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
