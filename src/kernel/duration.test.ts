import { expect, test } from 'vitest'
import type { Duration } from './duration.ts'
import { milliseconds } from './duration.ts'

test.each<[Duration, number]>([
  ['250ms', 250],
  ['30s', 30_000],
  ['1.5m', 90_000],
  ['2h', 7_200_000],
  ['7d', 604_800_000],
  ['0s', 0],
  [1234, 1234],
])('%s is %i ms', (duration, ms) => expect(milliseconds(duration)).toBe(ms))

test.each(['', '5', '5 s', 's', '-5s', '5S', '5sec', '1e3s', '.5s', '5s\n'])(
  '%j is refused, and told how to write it',
  (text) => {
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID', hint: expect.stringContaining("'30s'") })
    expect(() => milliseconds(text as Duration)).toThrow(refused)
  },
)
