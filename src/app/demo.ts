import { messageOf } from '../kernel/errors.ts'
import type { Clock } from '../kernel/clock.ts'
import { sleep } from '../kernel/clock.ts'

const surnames = [...'김김김김이이이박박최최정정강조윤장임한오서신권황안송전홍']
const given = `민준 서준 도윤 예준 시우 하준 지호 주원 지우 준서 서연 서윤 지안 하은 하윤 민서 지유 채원 수아 다은
  은우 유준 현우 건우 우진 선우 예린 소율 가은 나윤 하늘 보람 슬기 아름 다솜 한결 영수 정희 미숙 성호`.split(/\s+/)

const tickMs = 100
/** More at once would measure the demo instead of the product. */
const maxInFlight = 64

export interface DemoOptions {
  /** Where the API is. */
  address: string
  /** People a second. */
  rate: number
  clock: Clock
  onError(error: Error): void
}

/** Hires people steadily through the API, as any program would. */
export function startDemo({ address, rate, clock, onError }: DemoOptions): { stop(): Promise<void> } {
  const over = new AbortController()
  const inFlight = new Set<Promise<void>>()

  async function hire(): Promise<void> {
    const response = await fetch(`${address}/api/v1/employees`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(somebody(clock.now())),
      signal: AbortSignal.timeout(10_000),
    })
    const answer = (await response.json()) as { code?: string }
    if (!response.ok) throw new Error(`hiring was answered with ${response.status} ${answer.code}`)
  }

  function begin(): void {
    const hiring = hire()
      .catch((error: unknown) => {
        if (!over.signal.aborted) onError(new Error(`demo: ${messageOf(error)}`, { cause: error }))
      })
      .finally(() => inFlight.delete(hiring))
    inFlight.add(hiring)
  }

  async function run(): Promise<void> {
    let due = 0
    let last = clock.monotonic()
    while (!over.signal.aborted) {
      await sleep(clock, tickMs, over.signal)
      const now = clock.monotonic()
      // What could not be hired in time is not made up for: a paused machine would wake with a flood.
      due = Math.min(due + ((now - last) * rate) / 1000, Math.max(1, rate))
      last = now
      for (; due >= 1 && inFlight.size < maxInFlight && !over.signal.aborted; due--) begin()
    }
  }

  const running = run()
  return {
    async stop() {
      over.abort()
      await running
      await Promise.all(inFlight)
    },
  }
}

export function somebody(nowMs: number) {
  const daysAgo = Math.floor(Math.random() * 3650)
  return {
    name: pick(surnames) + pick(given),
    annualSalary: (26 + Math.floor(Math.random() * 75)) * 1_000_000,
    joinedOn: new Date(nowMs - daysAgo * 86_400_000).toISOString().slice(0, 10),
  }
}

function pick<T>(all: readonly T[]): T {
  return all[Math.floor(Math.random() * all.length)]!
}
