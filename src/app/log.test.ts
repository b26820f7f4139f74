import { expect, test } from 'vitest'
import { systemClock } from '../kernel/clock.ts'
import { createLog, failureLog } from './log.ts'

function capture(level: 'info' | 'debug' = 'info') {
  const lines: string[] = []
  return { lines, log: createLog(level, (text) => void lines.push(text)) }
}

test('people get a line, what they can do about it, and for errors where it was', () => {
  const { lines, log } = capture()
  log.info({ port: 3000 }, 'ready')
  log.error({ err: new Error('it broke') }, 'request failed')
  log.debug('not shown')
  expect(lines).toHaveLength(2)
  expect(lines[0]).toMatch(/^\d\d:\d\d:\d\d ready {2}port=3000\n$/)
  expect(lines[1]).toMatch(/ERROR request failed\n +it broke\n +Error: it broke\n +at /)
})

test('the same failure, over and over, is told once in a while', () => {
  const { lines, log } = capture()
  let now = 0
  const tell = failureLog(log, { ...systemClock, monotonic: () => now })
  for (let i = 0; i < 100; i++) tell('relay', new Error('away'))
  tell('worker', new Error('away'))
  expect(lines).toHaveLength(2)
  now = 31_000
  tell('relay', new Error('away'))
  expect(lines[2]).toContain('repeated=99')
})
