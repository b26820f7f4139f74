import { describe, expect, it } from 'vitest'
import { sleep } from '../kernel/clock.ts'
import { VirtualClock } from './virtual-clock.ts'

describe('virtual clock', () => {
  it('runs timers in the order of their times, those of one moment in the order they were set', async () => {
    const clock = new VirtualClock()
    const ran: string[] = []
    for (const [name, ms] of Object.entries({ c: 30, a: 10, b1: 20, b2: 20 })) {
      clock.after(ms, () => void ran.push(`${name}@${clock.monotonic()}`))
    }
    await clock.advance(20)
    expect(ran).toEqual(['a@10', 'b1@20', 'b2@20'])
    expect(clock.pending).toBe(1)
    expect(await clock.runUntilIdle()).toBe(true)
    expect(ran.at(-1)).toBe('c@30')
  })

  it('finishes the promises that a timer sets off before the next timer runs', async () => {
    const clock = new VirtualClock()
    const ran: string[] = []
    const chain = async () => {
      for (let link = 0; link < 20; link++) await Promise.resolve()
      ran.push('chain')
    }
    clock.after(5, () => void chain())
    clock.after(5, () => void ran.push('next'))
    await clock.advance(5)
    expect(ran).toEqual(['chain', 'next'])
  })

  it('runs what a timer sets within the same advance, and leaves the clock at its end', async () => {
    const clock = new VirtualClock()
    const at: number[] = []
    const again = () => {
      at.push(clock.monotonic())
      clock.after(10, again)
    }
    clock.after(10, again)
    await clock.advance(35)
    expect(at).toEqual([10, 20, 30])
    expect(clock.monotonic()).toBe(35)
    expect(clock.nextInMs).toBe(5)
    expect(await clock.runUntilIdle({ maxSteps: 10 })).toBe(false)
  })

  it('forgets a timer that was called off, also by another timer of the same moment', async () => {
    const clock = new VirtualClock()
    const ran: string[] = []
    let cancel = () => {}
    clock.after(10, () => cancel())
    cancel = clock.after(10, () => void ran.push('called off'))
    await clock.advance(100)
    cancel()
    expect(ran).toEqual([])
    expect(clock.pending).toBe(0)
  })

  it('steps the wall back while durations only grow', async () => {
    const clock = new VirtualClock({ startAt: 1_000_000 })
    let woken = false
    void sleep(clock, 100).then(() => (woken = true))
    await clock.advance(60)
    clock.stepWall(-5000)
    expect(clock.now()).toBe(1_000_000 + 60 - 5000)
    expect(clock.monotonic()).toBe(60)
    await clock.advance(40)
    expect(woken).toBe(true)
  })

  it('runs until a promise has settled, and says when it never will', async () => {
    const clock = new VirtualClock()
    expect(await clock.run(sleep(clock, 3_600_000).then(() => 'slept'))).toBe('slept')
    expect(clock.monotonic()).toBe(3_600_000)
    await expect(clock.run(new Promise(() => {}))).rejects.toThrow('no timer is left')
    await expect(clock.run(Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  })
})
