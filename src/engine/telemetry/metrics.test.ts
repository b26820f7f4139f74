import { expect, test } from 'vitest'
import type { EngineDepth } from '../outbox/depth.ts'
import { createMetrics } from './metrics.ts'

const depth: EngineDepth = {
  outbox: { rows: 3, oldestAgeMs: 1500 },
  consumers: [{ consumer: 'payroll', ready: 1, running: 2, waiting: 4, oldestAgeMs: 250 }],
  deadLetters: 5,
  oldestTransactionMs: null,
}

test('counts what was done and shows what is to do', async () => {
  const metrics = createMetrics({ readDepth: async () => depth })
  metrics.observer.handled('payroll', 'done', 7)
  metrics.observer.relayed(9, 1)
  metrics.observer.batched('payroll', 7, 3)
  metrics.observer.lagged('payroll', 12)
  metrics.answered({ method: 'GET', route: '/things/:id', status: 200, tookMs: 3 })
  const text = await metrics.text()
  for (const line of [
    'kerp_events_handled_total{consumer="payroll",outcome="done"} 7',
    'kerp_events_relayed_total 9',
    'kerp_batch_size_sum{consumer="payroll"} 7',
    'kerp_lag_seconds_sum{consumer="payroll"} 0.012',
    'kerp_http_request_duration_seconds_count{method="GET",route="/things/:id",status="200"} 1',
    'kerp_outbox_rows 3',
    'kerp_oldest_unsent_seconds 1.5',
    'kerp_deliveries{consumer="payroll",state="waiting"} 4',
    'kerp_dead_letters 5',
    'kerp_oldest_transaction_seconds 0',
    'kerp_database_up 1',
  ]) {
    expect(text.split('\n')).toContain(line)
  }
  expect(text).toContain('process_cpu_seconds_total')
})

test('while the database is away, says so instead of showing old numbers', async () => {
  let away = false
  const metrics = createMetrics({ readDepth: async () => (away ? Promise.reject(new Error('away')) : depth) })
  await metrics.text()
  away = true
  const text = await metrics.text()
  expect(text).toContain('kerp_database_up 0')
  expect(text).not.toMatch(/^kerp_(outbox_rows|deliveries|dead_letters)\b.* \d/m)
  away = false
  expect(await metrics.text()).toContain('kerp_outbox_rows 3')
})

test('a database that does not answer does not hold up the scrape', async () => {
  const metrics = createMetrics({ readDepth: () => new Promise(() => {}) })
  expect(await metrics.text()).toContain('kerp_database_up 0')
})
