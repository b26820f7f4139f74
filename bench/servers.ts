import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { openEmbeddedPostgres } from '../src/engine/database/embedded/index.ts'
import { benchTables } from './subjects.ts'
import type { Environment } from './subjects.ts'

/** The servers of one run: private, on loopback, on free ports, in folders of their own, started when first needed. */
export interface Servers {
  /** An environment nobody used before: a fresh database, an emptied Redis. */
  fresh(needs: readonly ('postgres' | 'redis')[]): Promise<Environment & AsyncDisposable>
  versions(): Promise<Record<string, string>>
  stop(): Promise<void>
}

/** Durable as in production; large enough that no checkpoint falls into one run and not into the other. */
const settings = {
  fsync: 'on',
  synchronous_commit: 'on',
  shared_buffers: '512MB',
  max_wal_size: '8GB',
  checkpoint_timeout: '30min',
  max_connections: '200',
}

export async function openServers(): Promise<Servers> {
  const folder = await mkdtemp(join(tmpdir(), 'kerp-bench-'))
  let postgres: ReturnType<typeof openEmbeddedPostgres> | undefined
  let redis: ReturnType<typeof openRedis> | undefined
  let databases = 0
  // The embedded server keeps no process alive, not even the one that waits for its start.
  const alive = setInterval(() => {}, 60_000)

  return {
    async fresh(needs) {
      const env: Environment = { databaseUrl: '', redis: { host: '127.0.0.1', port: 0 } }
      let drop = async () => {}
      if (needs.includes('postgres')) {
        const server = await (postgres ??= openEmbeddedPostgres({ folder: join(folder, 'postgres'), settings }))
        const name = `bench_${++databases}`
        await statements(server.url, `create database ${name} template template0`)
        env.databaseUrl = Object.assign(new URL(server.url), { pathname: `/${name}` }).href
        await statements(env.databaseUrl, benchTables)
        drop = () => statements(server.url, `drop database ${name} with (force)`)
      }
      if (needs.includes('redis')) {
        const server = await (redis ??= openRedis(join(folder, 'redis')))
        await server.empty()
        env.redis.port = server.port
      }
      return { ...env, [Symbol.asyncDispose]: drop }
    },
    async versions() {
      const found: Record<string, string> = {}
      if (postgres) found.postgres = await postgresVersion((await postgres).url)
      if (redis) found.redis = (await redis).version
      return found
    },
    async stop() {
      const running = await Promise.allSettled([postgres, redis])
      for (const server of running) if (server.status === 'fulfilled') await server.value?.stop()
      clearInterval(alive)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Statistics as a running system has them, and nothing of the preparation left to be written during the run. */
export async function settle(databaseUrl: string): Promise<void> {
  await statements(databaseUrl, 'analyze', 'checkpoint')
}

export async function statements(databaseUrl: string, ...lines: string[]): Promise<void> {
  const client = new pg.Client(databaseUrl)
  await client.connect()
  try {
    for (const line of lines) await client.query(line)
  } finally {
    await client.end()
  }
}

async function postgresVersion(url: string): Promise<string> {
  const client = new pg.Client(url)
  await client.connect()
  const { rows } = await client.query<{ server_version: string }>('show server_version')
  await client.end()
  return rows[0]!.server_version.split(' ')[0]!
}

async function openRedis(folder: string) {
  const port = await freePort()
  await mkdir(folder, { recursive: true })
  const options = {
    port,
    bind: '127.0.0.1',
    dir: folder,
    save: '',
    appendonly: 'yes',
    appendfsync: 'everysec',
    // A rewrite would fall into one run and not into the other.
    'auto-aof-rewrite-percentage': 0,
  }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  // A process group of its own: Ctrl-C reaches the benchmark, which stops its servers in order.
  const server = spawn('redis-server', args, { stdio: 'ignore', detached: true })
  await started(server, 'redis-server is missing: apt-get install redis-server')
  // Only here, for a benchmark without Redis runs where the peers are not installed.
  const { Redis } = await import('ioredis')
  const client = new Redis({ host: '127.0.0.1', port })
  const version = /redis_version:(\S+)/.exec(await client.info('server'))?.[1] ?? 'unknown'
  return {
    port,
    version,
    empty: () => client.flushall(),
    async stop() {
      await client.quit()
      await stopped(server)
    },
  }
}

function started(server: ChildProcess, hint: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('spawn', resolve)
    server.once('error', (cause) => reject(new Error(hint, { cause })))
  })
}

async function stopped(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return
  const exit = new Promise((resolve) => server.once('exit', resolve))
  server.kill('SIGTERM')
  await exit
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (typeof address !== 'object' || !address) throw new Error('no port')
  return address.port
}
