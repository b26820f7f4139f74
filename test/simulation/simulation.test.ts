import { availableParallelism } from 'node:os'
import { describe, expect, test } from 'vitest'
import { runSeeds } from './crew.ts'
import { tryMutant } from './mutation.ts'
import { mutants } from './mutants.ts'
import type { FaultKind } from './plan.ts'
import { faultKinds } from './plan.ts'
import type { Outcome } from './run.ts'
import { simulate } from './run.ts'

const seeds = 150
/** Every mutant is found out within far fewer today. */
const seedsForMutants = 100

describe('the engine under faults', () => {
  test(`keeps every promise in ${seeds} runs`, { timeout: 120_000 }, async () => {
    const outcomes: Outcome[] = []
    const onOutcome = (outcome: Outcome) => (outcomes.push(outcome), 'go on' as const)
    await runSeeds({ from: 1, seeds, threads: Math.min(2, availableParallelism()), onOutcome })
    expect(outcomes.filter(({ violation }) => violation)).toEqual([])
    const struck = (kind: FaultKind) => outcomes.some(({ faults }) => faults[kind] > 0)
    expect(faultKinds.filter((kind) => !struck(kind))).toEqual([])
  })

  test('goes the same way every time for the same seed', { timeout: 60_000 }, async () => {
    for (const seed of [3, 11, 42, 77, 1234]) {
      const first = await traceOf(seed)
      expect(first.length).toBeGreaterThan(1000)
      expect(await traceOf(seed)).toBe(first)
    }
  })
})

describe('the simulator notices an engine that', () => {
  test.concurrent.for(mutants)('$name', { timeout: 180_000 }, async (mutant, { expect: expectHere }) => {
    const { caughtAt, output } = await tryMutant(mutant, seedsForMutants)
    expectHere(caughtAt, output).toBeDefined()
  })
})

async function traceOf(seed: number): Promise<string> {
  const lines: string[] = []
  await simulate(seed, { print: (line) => lines.push(line) })
  return lines.join('\n')
}
