import { describe, expect, test } from 'vitest'
import type { Envelope } from './envelope.ts'
import { contextOf, traceparentFrom } from './trace.ts'

const valid = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

describe('traceparent', () => {
  test('a valid one is passed on', () => expect(traceparentFrom(valid)).toBe(valid))

  test.each([
    undefined,
    '',
    'rubbish',
    valid.toUpperCase(),
    ` ${valid}`,
    `${valid}\n`,
    valid.slice(0, -1),
    valid.replace(/^00/, 'ff'),
    // The standard calls these invalid: nobody's trace, and nobody's span.
    '00-00000000000000000000000000000000-b7ad6b7169203331-01',
    '00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01',
  ])('%j is replaced by a new one', (header) => {
    const fresh = traceparentFrom(header)
    expect(fresh).not.toBe(header)
    expect(fresh).toMatch(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01$/)
  })

  test('no two new ones are the same', () => {
    expect(new Set(Array.from({ length: 100 }, () => traceparentFrom(undefined))).size).toBe(100)
  })
})

describe('what a handler emits', () => {
  const event: Envelope = {
    eventId: 'the-event',
    eventType: 'employee.created',
    timestamp: '2026-11-20T00:00:00.000Z',
    data: {},
    version: 1,
    key: null,
    companyId: 'one',
  }

  test('was caused by its event, the first of a chain', () => {
    expect(contextOf(event)).toEqual({ companyId: 'one', correlationId: 'the-event', causationId: 'the-event' })
  })

  test('belongs to the chain and the trace of its event', () => {
    const later = { ...event, correlationId: 'the-request', causationId: 'the-one-before', traceparent: valid }
    expect(contextOf(later)).toEqual({
      companyId: 'one',
      correlationId: 'the-request',
      causationId: 'the-event',
      traceparent: valid,
    })
  })
})
