import { describe, expect, test } from 'vitest'
import { VirtualClock } from '../testing/virtual-clock.ts'
import { sleep, systemClock } from './clock.ts'

describe('sleep', () => {
  test('takes its time, and no longer', async () => {
    const clock = new VirtualClock()
    let awake = false
    void sleep(clock, 1000).then(() => (awake = true))
    await clock.advance(999)
    expect(awake).toBe(false)
    await clock.advance(1)
    expect(awake).toBe(true)
  })

  test('ends at once when it is aborted, and leaves no timer behind', async () => {
    const clock = new VirtualClock()
    const aborter = new AbortController()
    const slept = sleep(clock, 1000, aborter.signal)
    aborter.abort()
    await slept
    expect(clock.pending).toBe(0)
  })

  test('does not begin when it was aborted before', async () => {
    const clock = new VirtualClock()
    await sleep(clock, 1000, AbortSignal.abort())
    expect(clock.pending).toBe(0)
  })

  test('a later abort finds nothing to do', async () => {
    const clock = new VirtualClock()
    const aborter = new AbortController()
    const slept = sleep(clock, 1000, aborter.signal)
    await clock.advance(1000)
    await slept
    aborter.abort()
    expect(clock.pending).toBe(0)
  })
})

describe('the system clock', () => {
  test('shows the time, and measures durations', () => {
    expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(1000)
    const before = systemClock.monotonic()
    expect(systemClock.monotonic()).toBeGreaterThanOrEqual(before)
  })

  test('does not take a wait of more than 24 days for one that is over', async () => {
    let over = false
    const cancel = systemClock.after(2 ** 31, () => (over = true))
    await sleep(systemClock, 5)
    cancel()
    expect(over).toBe(false)
  })

  test('what is called off does not happen', async () => {
    let happened = false
    systemClock.after(1, () => (happened = true))()
    await sleep(systemClock, 5)
    expect(happened).toBe(false)
  })
})
