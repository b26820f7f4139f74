import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Envelope, Message } from './envelope.ts'
import { fromMessage, readEnvelope, toMessage } from './envelope.ts'
import { newId } from './ids.ts'

const text = fc.string({ unit: 'grapheme' })
const envelopes = fc.record(
  {
    eventId: fc.uuid({ version: 7 }),
    eventType: fc.constantFrom('employee.created', 'tax-invoice.issued'),
    timestamp: fc.date({ noInvalidDate: true, min: new Date(0) }).map((date) => date.toISOString()),
    data: fc.jsonValue().filter((value) => !Object.is(value, -0) && !JSON.stringify(value).includes('__proto__')),
    version: fc.integer({ min: 1, max: 1000 }),
    key: fc.option(text),
    companyId: text,
    traceparent: text,
    correlationId: text,
    causationId: text,
    source: text,
  },
  { requiredKeys: ['eventId', 'eventType', 'timestamp', 'data', 'version', 'key', 'companyId'] },
) as fc.Arbitrary<Envelope>

test('an envelope comes out of its message as it went in', () => {
  fc.assert(
    fc.property(envelopes, (envelope) => {
      expect(fromMessage(toMessage(envelope))).toEqual(JSON.parse(JSON.stringify(envelope)))
    }),
  )
})

const body = { eventId: newId(), eventType: 'employee.created', timestamp: '2026-11-20T00:00:00.000Z', data: { a: 1 } }
const message = (changes: object = {}, headers: Message['headers'] = {}): Message => ({
  body: JSON.stringify({ ...body, ...changes }),
  headers,
})

test('the body is the standard event and nothing else', () => {
  const envelope = fromMessage(message({}, { companyId: 'one', key: 'k', version: '2' }))
  expect(JSON.parse(toMessage(envelope).body)).toEqual(body)
})

test('a message of another program, without our headers, is the first version of the default company', () => {
  expect(fromMessage(message())).toEqual({ ...body, version: 1, key: null, companyId: 'default' })
})

describe('refuses as unreadable', () => {
  const unreadable = expect.objectContaining({ code: 'MESSAGE_UNREADABLE' })

  test.each(['', '{', 'null', '[]', '"text"', '7', '{}', '\u0000'])('the body %j', (given) => {
    expect(() => fromMessage({ body: given, headers: {} })).toThrow(unreadable)
  })

  test.each([{ eventId: 5 }, { eventType: null }, { timestamp: 1_700_000_000 }, { data: undefined }])(
    '%j',
    (changes) => {
      expect(() => fromMessage(message(changes))).toThrow(unreadable)
    },
  )

  test.each(['0', '-1', '1.5', 'two', ''])('the version %j', (version) => {
    expect(() => fromMessage(message({}, { version }))).toThrow(unreadable)
  })

  // Neither could be written to any of our tables, not even as a dead letter.
  test('an id that is none, and a time that is none', () => {
    expect(() => fromMessage(message({ eventId: 'order-7' }))).toThrow(unreadable)
    expect(() => fromMessage(message({ timestamp: 'yesterday' }))).toThrow(unreadable)
  })
})

describe('an envelope as it is stored', () => {
  test('comes out as it went in', () => {
    fc.assert(
      fc.property(envelopes, (envelope) => {
        expect(readEnvelope(JSON.stringify(envelope))).toEqual(JSON.parse(JSON.stringify(envelope)))
      }),
    )
  })

  const stored = { ...body, version: 1, key: null, companyId: 'one' }

  test.each([
    { version: '1' },
    { version: 0 },
    { key: 5 },
    { key: undefined },
    { companyId: undefined },
    { eventId: 'x' },
  ])('is refused as unreadable with %j', (changes) => {
    const refused = expect.objectContaining({ code: 'MESSAGE_UNREADABLE' })
    expect(() => readEnvelope(JSON.stringify({ ...stored, ...changes }))).toThrow(refused)
  })
})

test('anything at all is either read or refused as unreadable', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), fc.dictionary(fc.string(), fc.string()), (given, headers) => {
      try {
        fromMessage({ body: given, headers })
      } catch (error) {
        expect(error).toMatchObject({ code: 'MESSAGE_UNREADABLE' })
      }
    }),
  )
})
