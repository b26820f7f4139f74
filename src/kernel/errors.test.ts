import { describe, expect, test } from 'vitest'
import { isKerpError, KerpError, messageOf, toError } from './errors.ts'

test('an error of ours says what, why, and what to do', () => {
  const cause = new Error('the reason')
  const error = new KerpError('NOT_FOUND', 'no such thing', { cause, hint: 'look elsewhere', details: [1] })
  expect(error).toMatchObject({
    name: 'KerpError',
    code: 'NOT_FOUND',
    message: 'no such thing',
    cause,
    hint: 'look elsewhere',
  })
  expect(error.details).toEqual([1])
  expect('cause' in new KerpError('NOT_FOUND', 'x')).toBe(false)
})

test('is recognised by its code', () => {
  const error = new KerpError('NOT_FOUND', 'no such thing')
  expect(isKerpError(error)).toBe(true)
  expect(isKerpError(error, 'NOT_FOUND')).toBe(true)
  expect(isKerpError(error, 'CONFLICT')).toBe(false)
  expect(isKerpError(Object.assign(new Error('x'), { code: 'NOT_FOUND' }), 'NOT_FOUND')).toBe(false)
})

describe('whatever is thrown becomes an error', () => {
  test('an error stays itself', () => {
    const error = new TypeError('x')
    expect(toError(error)).toBe(error)
  })

  test.each([undefined, null, 'text', 7, Symbol('s'), { toString: () => 'mine' }])(
    '%s is told and kept as the cause',
    (thrown) => {
      const error = toError(thrown)
      expect(error).toMatchObject({ code: 'HANDLER_FAILED', message: `thrown: ${String(thrown)}` })
      expect(error.cause).toBe(thrown)
    },
  )

  test('even what cannot be written as text', () => {
    expect(toError(Object.create(null))).toMatchObject({ code: 'HANDLER_FAILED' })
  })

  test('an error without a message tells its name', () => {
    expect(messageOf(new RangeError())).toBe('RangeError')
    expect(messageOf('text')).toBe('thrown: text')
  })
})
