import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { newId } from './ids.ts'
import { daySchema, idSchema, textSchema, wonSchema } from './schema.ts'

describe('won', () => {
  const schema = wonSchema()

  test('is a number outside and a bigint inside, both ways', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (amount) => {
        const inside = z.decode(schema, amount)
        expect(inside).toBe(BigInt(amount))
        expect(Object.is(z.encode(schema, inside), amount === 0 ? 0 : amount)).toBe(true)
      }),
    )
  })

  test.each([0.5, 2 ** 53, Number.NaN, '5', null, 5n])('refuses %s from outside', (value) => {
    expect(schema.safeParse(value).success).toBe(false)
  })

  test('refuses to write an amount that a JSON number would falsify', () => {
    expect(z.safeEncode(schema, 2n ** 53n + 1n).success).toBe(false)
    expect(z.safeEncode(schema, -(2n ** 60n)).success).toBe(false)
  })
})

describe('text', () => {
  const schema = textSchema(30)

  test.each(['김하늘', "O'Neill; drop table x --", '👩‍👩‍👧 "hi"', 'tab\tand\nline', '\\u0000'])('takes %j', (text) => {
    expect(schema.parse(text)).toBe(text)
  })

  test('is trimmed before it is measured', () => {
    expect(schema.parse(`  ${'x'.repeat(30)}\n`)).toBe('x'.repeat(30))
  })

  test.each(['', '   ', 'a\u0000b', '\ud83d', 'half \udc00', 'x'.repeat(31)])('refuses %j', (text) => {
    expect(schema.safeParse(text).success).toBe(false)
  })
})

test('an id is a UUID, and its description says of what', () => {
  expect(idSchema('Employee').safeParse(newId()).success).toBe(true)
  expect(idSchema('Employee').safeParse('7').success).toBe(false)
  expect(idSchema('Employee').meta()?.description).toBe('id of an Employee')
  expect(idSchema('Tax invoice').meta()?.description).toBe('id of a Tax invoice')
})

test('a day is one that exists', () => {
  expect(daySchema().safeParse('2028-02-29').success).toBe(true)
  for (const text of ['2026-02-29', '2026-13-01', '20261120', '2026-11-20T00:00:00Z']) {
    expect(daySchema().safeParse(text).success).toBe(false)
  }
})
