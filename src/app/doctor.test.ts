import { expect, test } from 'vitest'
import { judge } from './doctor.ts'

const well = { outbox: { rows: 0, oldestAgeMs: null }, consumers: [], deadLetters: 0, oldestTransactionMs: null }

test('a quiet system is well', () => {
  expect(judge(well).map(({ state }) => state)).toEqual(['OK', 'OK', 'OK'])
})

test('each trouble is told with what to do', () => {
  const stuck = { consumer: 'payroll', ready: 4, running: 0, waiting: 0, oldestAgeMs: 90_000 }
  const findings = judge({ ...well, consumers: [stuck], deadLetters: 2, oldestTransactionMs: 300_000 })
  expect(findings.map(({ check, state }) => `${check} ${state}`)).toEqual([
    'transactions WARN',
    'backlog WARN',
    'dead letters WARN',
  ])
  expect(findings.every(({ advice }) => advice !== undefined)).toBe(true)
})
