import { expect, test } from 'vitest'
import type { Observer } from './observer.ts'
import { observers, silentObserver } from './observer.ts'

test('several observers hear of everything, each with all that is told', () => {
  const heard: unknown[] = []
  const listener = Object.fromEntries(
    Object.keys(silentObserver).map((name) => [name, (...told: unknown[]) => heard.push([name, ...told])]),
  ) as unknown as Observer
  const all = observers([listener, silentObserver, listener])
  const error = new Error('x')
  all.relayed(2, 5)
  all.relayFailed(1, error)
  all.handled('shop', 'done', 3)
  all.attemptFailed('shop', {} as never, { do: 'ack' })
  all.batched('shop', 3, 7)
  all.lagged('shop', 9)
  all.failed('relay', error)
  const once = [
    ['relayed', 2, 5],
    ['relayFailed', 1, error],
    ['handled', 'shop', 'done', 3],
    ['attemptFailed', 'shop', {}, { do: 'ack' }],
    ['batched', 'shop', 3, 7],
    ['lagged', 'shop', 9],
    ['failed', 'relay', error],
  ]
  expect(heard).toEqual(once.flatMap((each) => [each, each]))
})
