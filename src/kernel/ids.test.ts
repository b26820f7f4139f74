import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { VirtualClock } from '../testing/virtual-clock.ts'
import { createIds, isUuid, newId, timeOfId } from './ids.ts'

const startAt = Date.UTC(2026, 10, 20)
const zeros = () => {}

test('an id is a UUIDv7 of the variant that the standard prescribes', () => {
  for (let i = 0; i < 300; i++) {
    expect(newId()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  }
})

test('random bits that are all ones do not disturb version and variant', () => {
  const make = createIds(new VirtualClock({ startAt }), (bytes) => void bytes.fill(0xff))
  expect(make()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7000-bfff-ffffffffffff$/)
})

test('the time of an id is the millisecond it was made in', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 47 }), (at) => {
      expect(timeOfId(createIds(new VirtualClock({ startAt: at }), zeros)())).toBe(at)
    }),
  )
})

describe('ids of one process only grow', () => {
  function expectGrowing(ids: readonly string[]): void {
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids.toSorted()).toEqual(ids)
  }

  test('also with more than 4096 in one millisecond', () => {
    const make = createIds(new VirtualClock({ startAt }), zeros)
    expectGrowing(Array.from({ length: 10_000 }, make))
  })

  test('whatever the clock does', () => {
    const steps = fc.array(fc.integer({ min: -5000, max: 5000 }), { maxLength: 200 })
    fc.assert(
      fc.property(steps, (all) => {
        const clock = new VirtualClock({ startAt })
        const make = createIds(clock, zeros)
        expectGrowing(all.map((ms) => (clock.stepWall(ms), make())))
      }),
    )
  })

  test('and follow the clock again once it has caught up', () => {
    const clock = new VirtualClock({ startAt })
    const make = createIds(clock, zeros)
    make()
    clock.stepWall(-10_000)
    expect(timeOfId(make())).toBe(startAt)
    clock.stepWall(20_000)
    expect(timeOfId(make())).toBe(startAt + 10_000)
  })
})

test('two processes that start in the same millisecond make different ids', () => {
  const clock = new VirtualClock({ startAt })
  const random = (bytes: Uint8Array) => void crypto.getRandomValues(bytes)
  const [one, other] = [createIds(clock, random), createIds(clock, random)]
  const ids = Array.from({ length: 1000 }, () => [one(), other()]).flat()
  expect(new Set(ids).size).toBe(2000)
})

test('tells an id from other text', () => {
  expect(isUuid(newId())).toBe(true)
  expect(isUuid(newId().toUpperCase())).toBe(true)
  for (const text of ['', 'abc', `${newId()} `, newId().replaceAll('-', ''), `g${newId().slice(1)}`]) {
    expect(isUuid(text)).toBe(false)
  }
})
