import { afterAll, beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { systemClock } from '../../kernel/clock.ts'
import { defineEvent } from '../../kernel/event.ts'
import type { Tx } from '../database/transaction.ts'
import type { Delivery } from '../transport.ts'
import { applyBatch } from './apply.ts'
import { asHandler, guardAgainstExit } from './exit-guard.ts'
import { GroupFailure } from './group.ts'
import { on } from './subscription.ts'

const Named = defineEvent('it.named', { data: z.object({ name: z.string() }) })

// In place of the real one, which would end this process before anything could be expected.
const exit = process.exit
const exited: unknown[] = []
beforeAll(() => {
  process.exit = ((code?: number) => {
    exited.push(code)
    throw new Error('the process has ended')
  }) as typeof process.exit
  guardAgainstExit()
})
afterAll(() => void (process.exit = exit))

const refused = expect.objectContaining({ code: 'HANDLER_EXITED', message: expect.stringContaining('process.exit(3)') })

test('a handler that ends the process has failed, and the process lives on', async () => {
  expect(() => asHandler(() => process.exit(3))).toThrow(refused)
  await expect(asHandler(async () => process.exit(3))).rejects.toThrow(refused)
  const deep = async () => {
    await new Promise((resolve) => setImmediate(resolve))
    process.exit(3)
  }
  await expect(asHandler(deep)).rejects.toThrow(refused)
  expect(exited).toEqual([])
})

test('everybody else still can', () => {
  expect(() => process.exit(4)).toThrow('the process has ended')
  expect(exited.splice(0)).toEqual([4])
})

test('to install it twice is to install it once', () => {
  const installed = process.exit
  guardAgainstExit()
  expect(process.exit).toBe(installed)
})

test.each([
  ['the only one', ['exits']],
  ['behind one that awaits', ['waits', 'exits']],
])('a message of a key is guarded: %s', async (_, names) => {
  const handle = async ({ data }: { data: { name: string } }) => {
    await new Promise((resolve) => setImmediate(resolve))
    if (data.name === 'exits') process.exit(3)
  }
  const batch = names.map((name): Delivery => {
    const envelope = {
      eventId: name,
      eventType: Named.name,
      timestamp: '',
      data: { name },
      version: 1,
      key: 'k',
      companyId: 'one',
    }
    return { envelope, attempt: 1, signal: new AbortController().signal }
  })
  // It does not touch the database.
  const tx = { in: () => ({ end() {} }) } as unknown as Tx
  const failure: unknown = await applyBatch(on(Named, { name: 'tested', handle }), systemClock)(batch, tx).catch(
    (thrown) => thrown,
  )
  expect(failure).toBeInstanceOf(GroupFailure)
  expect([...(failure as GroupFailure).suspects.values()]).toEqual([refused])
  expect(exited).toEqual([])
})
