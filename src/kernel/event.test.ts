import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvent } from './event.ts'
import { newId } from './ids.ts'
import { idSchema, textSchema, wonSchema } from './schema.ts'

const Hired = defineEvent('employee.hired', {
  data: z.object({
    employeeId: idSchema('Employee'),
    name: textSchema(50),
    salary: wonSchema(),
    notes: z.array(z.string()).optional(),
  }),
  key: ({ employeeId }) => employeeId,
})

const hired = { employeeId: newId(), name: '김하늘', salary: 42_000_000n }

test('what is written can be read again, after a journey as JSON', () => {
  const data = fc.record(
    {
      employeeId: fc.uuid(),
      name: fc
        .string({ minLength: 1, maxLength: 20, unit: 'grapheme' })
        .filter((s) => s.trim() === s && !s.includes('\u0000')),
      salary: fc.maxSafeInteger().map(BigInt),
      notes: fc.array(fc.string()),
    },
    { requiredKeys: ['employeeId', 'name', 'salary'] },
  )
  fc.assert(
    fc.property(data, (given) => {
      const wire = JSON.parse(JSON.stringify(Hired.encode(given)))
      expect(Hired.decode(wire, 1)).toEqual(given)
    }),
  )
})

test('an amount of won travels as a number', () => {
  expect(Hired.encode(hired)).toEqual({ ...hired, salary: 42_000_000 })
})

test('the key is taken from the data; without a declared one there is none', () => {
  expect(Hired.keyOf(hired)).toBe(hired.employeeId)
  expect(defineEvent('it.happened', { data: z.object({}) }).keyOf({})).toBeNull()
})

describe('data that do not fit are refused with the name of the event and of each field', () => {
  const refusal = (...words: string[]) =>
    expect.objectContaining({ code: 'EVENT_INVALID', message: expect.stringMatching(new RegExp(words.join('.*'))) })

  test('when written', () => {
    expect(() => Hired.encode({ ...hired, name: '' })).toThrow(refusal('employee.hired', 'name: '))
    expect(() => Hired.encode({ ...hired, salary: 5 as never })).toThrow(refusal('salary: '))
  })

  test('when read', () => {
    const wire = { ...hired, salary: 1.5, notes: ['a', 7] }
    expect(() => Hired.decode(wire, 1)).toThrow(refusal('employee.hired', 'salary: ', 'notes.1: '))
    expect(() => Hired.decode(null, 1)).toThrow(refusal('employee.hired'))
  })

  test('and a program finds the fields in the details', () => {
    const details = [{ path: 'salary', message: expect.any(String) }]
    expect(() => Hired.decode({ ...hired, salary: '5' }, 1)).toThrow(expect.objectContaining({ details }))
  })
})

describe('an older version', () => {
  const Priced = defineEvent('item.priced', {
    version: 3,
    data: z.object({ price: z.number(), currency: z.string(), taxed: z.boolean() }),
    upcast: {
      1: (data: { amount: number }) => ({ price: data.amount, currency: 'KRW' }),
      2: (data: object) => ({ ...data, taxed: false }),
    },
  })

  test('is brought up to date step by step', () => {
    const current = { price: 5, currency: 'KRW', taxed: false }
    expect(Priced.decode({ amount: 5 }, 1)).toEqual(current)
    expect(Priced.decode({ price: 5, currency: 'KRW' }, 2)).toEqual(current)
    expect(Priced.decode({ ...current, taxed: true }, 3)).toEqual({ ...current, taxed: true })
  })

  test('a newer one than this program knows waits for one that does', () => {
    expect(() => Priced.decode({}, 4)).toThrow(expect.objectContaining({ code: 'EVENT_TOO_NEW' }))
  })

  test('with a step missing is refused, and told which', () => {
    const Gapped = defineEvent('item.priced', { version: 3, data: z.object({}), upcast: { 1: (data) => data } })
    expect(() => Gapped.decode({}, 1)).toThrow(
      expect.objectContaining({ code: 'EVENT_INVALID', message: expect.stringContaining('upcast 2 is missing') }),
    )
  })

  test('that is not what the step expects is refused as invalid, not tried again and again', () => {
    const Sized = defineEvent('item.sized', {
      version: 2,
      data: z.object({ width: z.number() }),
      upcast: { 1: (data: { size: { width: number } }) => ({ width: data.size.width }) },
    })
    expect(() => Sized.decode({ length: 5 }, 1)).toThrow(expect.objectContaining({ code: 'EVENT_INVALID' }))
  })
})

test.each([
  'employee',
  'Employee.created',
  'employee created',
  'employee.',
  '.created',
  'a..b',
  '1.created',
  'a.b\n',
  '',
])('%j is no name for an event', (name) => {
  expect(() => defineEvent(name, { data: z.object({}) })).toThrow(
    expect.objectContaining({ code: 'CONFIG_INVALID', hint: expect.stringContaining('employee.created') }),
  )
})

test.each(['employee.created', 'tax-invoice.issued', 'a.b.c', 'k8s.pod2.started'])('%s is one', (name) => {
  expect(defineEvent(name, { data: z.object({}) }).name).toBe(name)
})
