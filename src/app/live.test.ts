import { expect, test } from 'vitest'
import { systemClock } from '../kernel/clock.ts'
import { createPulse, toLine } from './live.ts'
import { createScreen } from './screen.ts'

test('the pulse tells what was done since the last one', () => {
  let now = 0
  const { observer, take } = createPulse({ ...systemClock, monotonic: () => now })
  observer.handled('payroll', 'done', 50)
  observer.handled('payroll', 'duplicate', 5)
  observer.handled('payroll', 'dead', 1)
  for (const lag of [9, 1, 5]) observer.lagged('payroll', lag)
  now = 500
  const pulse = take(12)
  expect(pulse).toEqual({ perSecond: 100, lagMs: 5, backlog: 12, done: 50, retried: 0, dead: 1 })
  expect(toLine(pulse)).toBe('  100 events/s   lag 5.0 ms   backlog 12   done 50   retried 0   dead 1')
  now = 1000
  expect(take(null)).toMatchObject({ perSecond: 0, lagMs: null, backlog: null })
})

test('what is written appears above the live line, which never wraps', () => {
  let written = ''
  const screen = createScreen({ columns: 10, write: (text: string) => (written += text) } as never)
  screen.live('123456789012345')
  screen.write('hello\n')
  expect(written).toBe('123456789\r\x1b[2Khello\n123456789')
  screen.live('')
  expect(written.endsWith('\r\x1b[2K')).toBe(true)
})
