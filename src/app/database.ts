import type { Database } from '../engine/database/database.ts'
import { openDatabase } from '../engine/database/database.ts'
import type { EmbeddedPostgres } from '../engine/database/embedded/index.ts'
import type { Clock } from '../kernel/clock.ts'
import { sleep } from '../kernel/clock.ts'
import { isKerpError, messageOf } from '../kernel/errors.ts'
import type { Config } from './config.ts'

export interface OpenedDatabase {
  readonly database: Database
  /** Only where no DATABASE_URL is given. */
  readonly embedded: EmbeddedPostgres | undefined
}

export interface OpenOptions {
  readonly clock: Clock
  /** Told once, when it has to wait. */
  say(line: string): void
  onError(error: Error): void
  /** How long to wait for a server that is not there yet. */
  patienceMs?: number
  signal?: AbortSignal | undefined
}

export const startPatienceMs = 30_000
const retryEveryMs = 1_000

/** Opens what the settings name, into the stack: whoever disposes of that closes it. */
export async function openConfigured(
  config: Config,
  stack: AsyncDisposableStack,
  options: OpenOptions,
): Promise<OpenedDatabase> {
  const embedded = config.databaseUrl === undefined ? await startEmbedded(config.dataDir, options) : undefined
  if (embedded) stack.defer(() => embedded.stop())
  let closing = false
  const database = await patiently(options, () =>
    openDatabase({
      url: config.databaseUrl ?? embedded!.url,
      max: config.pool,
      onError: (error) => (closing ? undefined : options.onError(error)),
      ...(embedded ? { revive: () => embedded.ensure() } : {}),
    }),
  )
  stack.defer(() => {
    // Connections that the server ends before they have said goodbye are no news any more.
    closing = true
    return database.close()
  })
  return { database, embedded }
}

async function startEmbedded(folder: string, { say }: OpenOptions): Promise<EmbeddedPostgres> {
  // Loaded when needed: with a DATABASE_URL its package may be missing.
  const { openEmbeddedPostgres } = await import('../engine/database/embedded/index.ts')
  return openEmbeddedPostgres({ folder, log: say })
}

async function patiently<T>({ clock, say, patienceMs = 0, signal }: OpenOptions, open: () => Promise<T>): Promise<T> {
  const startedAt = clock.monotonic()
  for (let attempt = 1; ; attempt++) {
    try {
      return await open()
    } catch (error) {
      const waitedMs = clock.monotonic() - startedAt
      if (waitedMs + retryEveryMs > patienceFor(error, patienceMs)) throw error
      if (attempt === 1) say(`${messageOf(error)}; trying again for ${patienceMs / 1000} s`)
      await sleep(clock, retryEveryMs, signal)
      if (signal?.aborted) throw error
    }
  }
}

/** A server that starts up or restarts, or a network that is not there yet. */
const comesBack = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  '57P01',
  '57P02',
  '57P03',
  '53300',
])

/** What is wrong in the URL stays wrong: that is told at once. A name that cannot be looked up now may be either. */
export function patienceFor(error: unknown, patienceMs: number): number {
  if (!isKerpError(error, 'DATABASE_UNREACHABLE')) return 0
  const { code, message = '' } = (error.cause ?? {}) as { code?: string; message?: string }
  if (code === 'EAI_AGAIN') return Math.min(5_000, patienceMs)
  return comesBack.has(code ?? '') || /timeout|Connection terminated/.test(message) ? patienceMs : 0
}
