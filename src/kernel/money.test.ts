import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { allocate, formatWon, won } from './money.ts'

describe('won', () => {
  test.each([
    ['a number', 42_000_000, 42_000_000n],
    ['a negative one', -3, -3n],
    ['digits', '-42000000', -42_000_000n],
    ['more than a float can hold', '9007199254740993', 9_007_199_254_740_993n],
    ['a bigint', 7n, 7n],
  ])('takes %s', (_, given, amount) => expect(won(given)).toBe(amount))

  test.each([
    0.5,
    Number.NaN,
    Infinity,
    2 ** 53,
    '',
    ' 5',
    '5 ',
    '5\n',
    '1e3',
    '0x10',
    '1.0',
    '1,000',
    '+5',
    '--5',
    '원',
  ])('refuses %s', (given) => expect(() => won(given)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' })))
})

describe('allocate', () => {
  const amounts = fc.bigInt({ min: -(10n ** 18n), max: 10n ** 18n })
  const weights = fc
    .array(fc.bigInt({ min: 0n, max: 10n ** 12n }), { minLength: 1, maxLength: 20 })
    .filter((all) => all.some((weight) => weight > 0n))

  test('gives away exactly the amount, and no one more or less than a won off their share', () => {
    fc.assert(
      fc.property(amounts, weights, (amount, given) => {
        const parts = allocate(amount, given)
        const total = given.reduce((sum, weight) => sum + weight, 0n)
        expect(parts.reduce((sum, part) => sum + part, 0n)).toBe(amount)
        parts.forEach((part, index) => {
          const off = part * total - amount * given[index]!
          expect(off > -total && off < total).toBe(true)
        })
      }),
    )
  })

  test('gives nothing to a weight of zero', () => {
    expect(allocate(100n, [0n, 1n, 0n, 2n])).toEqual([0n, 34n, 0n, 66n])
  })

  test('gives what does not divide to the first', () => {
    expect(allocate(10n, [1n, 1n, 1n])).toEqual([4n, 3n, 3n])
    expect(allocate(-10n, [1n, 1n, 1n])).toEqual([-4n, -3n, -3n])
  })

  test.each([{ weights: [] }, { weights: [0n, 0n] }, { weights: [1n, -1n] }, { weights: [-1n] }])(
    'refuses weights that say nothing: $weights',
    ({ weights: given }) => {
      expect(() => allocate(1n, given)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }))
    },
  )
})

test('is written as people write it, also when it is larger than a float', () => {
  expect(formatWon(42_000_000n)).toBe('₩42,000,000')
  expect(formatWon(9_007_199_254_740_993n)).toBe('₩9,007,199,254,740,993')
})
