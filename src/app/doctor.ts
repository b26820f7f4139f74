import { access, constants, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Database } from '../engine/database/database.ts'
import { planMigrations } from '../engine/database/migrate.ts'
import { checkPort } from '../engine/http/listen.ts'
import type { EngineDepth } from '../engine/outbox/depth.ts'
import { outboxDepth } from '../engine/outbox/depth.ts'
import { systemClock } from '../kernel/clock.ts'
import { isKerpError, messageOf } from '../kernel/errors.ts'
import type { Config, Overrides } from './config.ts'
import { readConfig } from './config.ts'
import { openConfigured } from './database.ts'
import { migrations } from './modules.ts'
import { hasData } from './operations.ts'

export interface Finding {
  readonly check: string
  readonly state: 'OK' | 'WARN' | 'FAIL'
  readonly message: string
  /** What to do about it. */
  readonly advice?: string
}

const longTransactionMs = 60_000
const longWaitMs = 60_000

/** Looks at everything the product needs, and goes on looking when something is missing. */
export async function examine(flags: Overrides = {}): Promise<Finding[]> {
  const findings = [checkNode()]
  const config = tryConfig(flags, findings)
  if (!config) return findings
  findings.push(await checkAddress(config))
  if (config.databaseUrl === undefined) findings.push(await checkFolder(config.dataDir))
  return [...findings, ...(await checkDatabase(config))]
}

function checkNode(): Finding {
  const check = 'Node.js'
  const { node } = process.versions
  if (Number.parseInt(node, 10) >= 24) return { check, state: 'OK', message: node }
  return { check, state: 'FAIL', message: `${node} is too old`, advice: 'install Node.js 24 or newer' }
}

function tryConfig(flags: Overrides, findings: Finding[]): Config | undefined {
  try {
    const config = readConfig(flags)
    findings.push({ check: 'settings', state: 'OK', message: 'all can be used' })
    return config
  } catch (error) {
    findings.push(failed('settings', error))
    return undefined
  }
}

async function checkAddress({ host, port }: Config): Promise<Finding> {
  const check = 'port'
  try {
    await checkPort({ host, port })
    return { check, state: 'OK', message: `${port} is free` }
  } catch (error) {
    if (isKerpError(error, 'PORT_IN_USE') && (await answersAsKerp(port))) {
      return { check, state: 'OK', message: `${port} is served by kerp itself` }
    }
    return failed(check, error)
  }
}

async function answersAsKerp(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(1_000) })
    return ((await response.json()) as { name?: string }).name === 'kerp'
  } catch {
    return false
  }
}

async function checkFolder(folder: string): Promise<Finding> {
  const check = 'data folder'
  const there = await nearestFolder(folder)
  try {
    if (!(await stat(there)).isDirectory()) throw new Error(`${there} is not a folder`)
    await access(there, constants.W_OK)
    const message = there === folder ? `${folder} can be written to` : `${folder} will be made at the first start`
    return { check, state: 'OK', message }
  } catch (error) {
    const advice = 'choose another with KERP_DATA_DIR, or give yourself the right to write there'
    return { check, state: 'FAIL', message: `nothing can be written there: ${messageOf(error)}`, advice }
  }
}

async function nearestFolder(folder: string): Promise<string> {
  for (let path = folder; ; path = dirname(path)) {
    if ((await stat(path).catch(() => undefined)) || path === dirname(path)) return path
  }
}

async function checkDatabase(config: Config): Promise<Finding[]> {
  const check = 'database'
  if (!hasData(config))
    return [{ check, state: 'OK', message: 'none yet; the embedded PostgreSQL makes it at the first start' }]
  try {
    await using opening = new AsyncDisposableStack()
    const { database } = await openConfigured({ ...config, pool: 2 }, opening, {
      clock: systemClock,
      say() {},
      onError() {},
    })
    const [server] = await database.sql<{ version: string }>`select current_setting('server_version') as version`
    const version: Finding = { check, state: 'OK', message: `PostgreSQL ${server!.version.split(' ')[0]} answers` }
    const upToDate = await checkMigrations(database)
    return [version, upToDate, ...(upToDate.state === 'OK' ? judge(await outboxDepth(database)) : [])]
  } catch (error) {
    return [failed(check, error)]
  }
}

async function checkMigrations(database: Database): Promise<Finding> {
  const check = 'migrations'
  try {
    const due = await planMigrations(database, migrations)
    if (due.length === 0) return { check, state: 'OK', message: 'all have run' }
    const names = due.map(({ module, name }) => `${module}/${name}`).join(', ')
    return {
      check,
      state: 'FAIL',
      message: `not run yet: ${names}`,
      advice: 'run: kerp migrate (starting does it too)',
    }
  } catch (error) {
    return failed(check, error)
  }
}

export function judge({ outbox, consumers, deadLetters, oldestTransactionMs }: EngineDepth): Finding[] {
  const toDo = consumers.reduce((sum, { ready, running }) => sum + ready + running, outbox.rows)
  const oldestMs = Math.max(outbox.oldestAgeMs ?? 0, ...consumers.map(({ oldestAgeMs }) => oldestAgeMs ?? 0))
  const stuck = toDo > 0 && oldestMs > longWaitMs
  const open = oldestTransactionMs ?? 0
  return [
    warnIf(open > longTransactionMs, 'transactions', `the oldest open one is ${age(open)} old`, {
      advice: 'find it in pg_stat_activity: while it is open, nothing that was deleted since can be cleaned up',
    }),
    warnIf(stuck, 'backlog', `${toDo} events to do${toDo ? `, the oldest for ${age(oldestMs)}` : ''}`, {
      advice: 'see which consumer with: kerp outbox; is a process with the role worker running?',
    }),
    warnIf(deadLetters > 0, 'dead letters', deadLetters === 0 ? 'none' : `${deadLetters} wait for a decision`, {
      advice: 'look at them with: kerp dead list',
    }),
  ]
}

function warnIf(bad: boolean, check: string, message: string, { advice }: { advice: string }): Finding {
  return bad ? { check, state: 'WARN', message, advice } : { check, state: 'OK', message }
}

function failed(check: string, error: unknown): Finding {
  const hint = isKerpError(error) ? error.hint : undefined
  return { check, state: 'FAIL', message: messageOf(error), ...(hint === undefined ? {} : { advice: hint }) }
}

function age(ms: number): string {
  return ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`
}
