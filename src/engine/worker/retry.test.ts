import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { KerpError } from '../../kernel/errors.ts'
import { exponential, fixed, judge, notNow, permanent } from './retry.ts'

describe('waits between attempts', () => {
  test('double up to the most', () => {
    const wait = exponential('1s', { max: '10s', random: () => 0 })
    expect([1, 2, 3, 4, 5, 6].map(wait)).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000])
  })

  test('are shortened by a quarter at most, and always a number that a clock can take', () => {
    const attempts = fc.integer({ min: 1, max: 5000 })
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    fc.assert(
      fc.property(attempts, random, (attempt, drawn) => {
        const full = Math.min(300_000, 1000 * 2 ** (attempt - 1))
        const ms = exponential('1s', { random: () => drawn })(attempt)
        expect(Number.isInteger(ms)).toBe(true)
        expect(ms).toBeGreaterThanOrEqual(full * 0.75 - 1)
        expect(ms).toBeLessThanOrEqual(full)
      }),
    )
  })

  test('or are always the same', () => expect([1, 2, 9].map(fixed('250ms'))).toEqual([250, 250, 250]))

  test('that make no sense are refused when they are declared', () => {
    expect(() => exponential('soon' as never)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
    expect(() => fixed('' as never)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
    expect(() => notNow('later' as never)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })
})

describe('a message whose attempt failed', () => {
  const verdict = (error: Error, attempt = 1) => judge(error, attempt, 3, fixed(50))

  test('is tried again, and that is its own fault', () => {
    const error = new Error('x')
    expect(verdict(error, 2)).toEqual({ do: 'retry', afterMs: 50, blame: 'message', error })
  })

  test('is given up after its last attempt', () => {
    expect(verdict(new Error('x'), 3)).toMatchObject({ do: 'dead', reason: 'attempts' })
    expect(verdict(new Error('x'), 4)).toMatchObject({ do: 'dead', reason: 'attempts' })
  })

  test('is given up at once when that is permanent, with the cause', () => {
    const cause = new Error('y')
    const error = permanent('wrong number', cause)
    expect(verdict(error)).toEqual({ do: 'dead', reason: 'permanent', error })
    expect(error).toMatchObject({ message: 'wrong number', cause })
  })

  test('waits without spending an attempt when it is not now, even at the last', () => {
    expect(verdict(notNow('2m', 'closed'), 3)).toMatchObject({
      do: 'retry',
      afterMs: 120_000,
      blame: 'consumer',
      error: { message: 'closed' },
    })
  })

  test.each(['LEASE_LOST', 'WORKER_STOPPING', 'EVENT_TOO_NEW'] as const)('waits without spending one on %s', (code) => {
    expect(verdict(new KerpError(code, 'x'), 3)).toMatchObject({ do: 'retry', blame: 'consumer' })
  })

  test.each(['EVENT_INVALID', 'EVENT_UNKNOWN', 'MESSAGE_UNREADABLE'] as const)('is given up at once on %s', (code) => {
    expect(verdict(new KerpError(code, 'x'))).toMatchObject({ do: 'dead', reason: code })
  })
})
