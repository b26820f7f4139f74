import { sleep, systemClock } from '../kernel/clock.ts'
import { KerpError, messageOf } from '../kernel/errors.ts'
import { banner } from './banner.ts'
import type { Config } from './config.ts'
import { startDemo } from './demo.ts'
import { createPulse, startLive, toLine } from './live.ts'
import type { Pulse } from './live.ts'
import type { Log } from './log.ts'
import { createLog, failureLog } from './log.ts'
import type { Screen } from './screen.ts'
import { createScreen } from './screen.ts'
import { followSignals } from './signals.ts'
import type { App } from './start.ts'
import { start } from './start.ts'

export interface ServeOptions {
  /** People to hire a second, to see something happen. */
  readonly demoRate?: number | undefined
}

const stopWithinMs = 15_000

/** Runs until it is told to stop; the exit code says whether all went well. */
export async function serve(config: Config, { demoRate }: ServeOptions = {}): Promise<number> {
  if (demoRate !== undefined && !config.roles.includes('api')) {
    throw new KerpError('CONFIG_INVALID', 'the demo hires through the API, which this process does not serve', {
      hint: "add the role 'api', or leave out --demo",
    })
  }
  keepOnWithoutReaders()
  const screen = process.stdout.isTTY ? createScreen(process.stdout) : undefined
  const log = createLog(config.logLevel, process.stderr.isTTY ? (text) => writeError(screen, text) : undefined)
  const signals = followSignals(log)
  const pulse = createPulse(systemClock)

  let app: App
  try {
    app = await start(config, { log, observer: pulse.observer, signal: signals.stop })
  } catch (error) {
    if (signals.stop.aborted) return signals.exitCode()
    throw error
  }
  greet(app, config, screen)
  const live = startLive({
    ...liveSettings(screen, log),
    take: pulse.take,
    readBacklog: app.backlog,
    clock: systemClock,
  })
  const demo =
    demoRate === undefined || app.address === undefined
      ? undefined
      : startDemo({ address: app.address, rate: demoRate, clock: systemClock, onError: tellDemo(log) })

  await signals.told
  const clean = await within(stopWithinMs, async () => {
    await Promise.all([demo?.stop(), live.stop()])
    screen?.live('')
    await app.stop()
  })
  if (clean !== true) log.error({ err: clean }, `not everything was stopped: ${messageOf(clean)}`)
  else log.info('stopped')
  return clean === true ? signals.exitCode() : 1
}

/** Who read along may go away (a closed terminal, a log pipe): that is no reason to stop serving. */
function keepOnWithoutReaders(): void {
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error').on('error', () => {})
}

function writeError(screen: Screen | undefined, text: string): void {
  if (screen) screen.write(text, process.stderr)
  else process.stderr.write(text)
}

function greet(app: App, config: Config, screen: Screen | undefined): void {
  if (screen) screen.write(banner(app, config))
  else process.stdout.write(`kerp is ready${app.address ? ` at ${app.address}` : ''} (${config.roles.join(', ')})\n`)
}

/** In a terminal one line that changes in place; elsewhere a line now and then, while there is something to tell. */
function liveSettings(screen: Screen | undefined, log: Log) {
  if (screen) return { show: (pulse: Pulse) => screen.live(toLine(pulse)), everyMs: 500, backlogEveryMs: 2_000 }
  let before = ''
  const show = (pulse: Pulse) => {
    const { done, retried, dead, backlog } = pulse
    const now = JSON.stringify([done, retried, dead, backlog])
    if (now !== before && before !== '') log.info(pulse, 'progress')
    before = now
  }
  return { show, everyMs: 10_000, backlogEveryMs: 10_000 }
}

function tellDemo(log: Log): (error: Error) => void {
  const failed = failureLog(log, systemClock)
  return (error) => failed('demo', error)
}

/** True, or what went wrong. */
async function within(ms: number, work: () => Promise<void>): Promise<unknown> {
  const finished = work().then(
    () => true,
    (error: unknown) => error,
  )
  const late = sleep(systemClock, ms).then(
    () => new KerpError('DEADLINE_EXCEEDED', `it took longer than ${ms / 1000} s`),
  )
  return Promise.race([finished, late])
}
