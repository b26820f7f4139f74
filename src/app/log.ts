import { pino } from 'pino'
import type { Logger } from 'pino'
import type { Clock } from '../kernel/clock.ts'
import type { Config } from './config.ts'

export type Log = Logger

/** JSON lines on standard error; on a terminal, lines for people. */
export function createLog(level: Config['logLevel'], toPeople?: (text: string) => void): Log {
  if (!toPeople) {
    const destination = pino.destination({ fd: 2, sync: true })
    // Nobody reads the log any more: that is no reason to stop working.
    destination.on('error', () => {})
    return pino({ level, base: null }, destination)
  }
  const stream = { write: (line: string) => toPeople(forPeople(JSON.parse(line) as LogLine)) }
  return pino({ level, base: null }, stream)
}

interface LogLine {
  level: number
  time: number
  msg?: string
  err?: { message?: string; hint?: string; stack?: string }
  [detail: string]: unknown
}

const labels: Record<number, string> = { 10: 'TRACE', 20: 'DEBUG', 30: '', 40: 'WARN', 50: 'ERROR', 60: 'FATAL' }

/** `12:30:05 WARN  what happened  key=value`, and below it what can be done and, for errors, where it was. */
export function forPeople({ level, time, msg = '', err, ...details }: LogLine): string {
  const clock = new Date(time).toTimeString().slice(0, 8)
  const label = labels[level] ? `${labels[level].padEnd(5)} ` : ''
  const rest = Object.entries(details).map(
    ([key, value]) => `  ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  const lines = [`${clock} ${label}${msg}${rest.join('')}`]
  // What caused it is part of its message here, which mostly repeats what it says itself.
  if (err?.message && !err.message.startsWith(msg) && !msg.includes(err.message)) lines.push(`         ${err.message}`)
  if (err?.hint) lines.push(`         → ${err.hint}`)
  if (err?.stack && level >= 50) lines.push(err.stack.replaceAll(/^/gm, '         '))
  return `${lines.join('\n')}\n`
}

const quietMs = 30_000

/**
 * Tells of failures of the machinery without drowning the log: while a server is away, every loop fails several times a
 * second with the same words. The first is told at once, the others as a number with the next one after a while.
 */
export function failureLog(log: Log, clock: Clock): (where: string, error: Error) => void {
  const told = new Map<string, { at: number; since: number }>()
  return (where, error) => {
    const key = `${where}: ${error.message}`
    const now = clock.monotonic()
    const before = told.get(key)
    if (before && now - before.at < quietMs) return void before.since++
    // Messages may hold what differs each time: the memory of them is bounded.
    if (told.size > 200) told.clear()
    told.set(key, { at: now, since: 0 })
    const more = before?.since ? { repeated: before.since } : {}
    log.warn({ where, err: error, ...more }, error.message)
  }
}
