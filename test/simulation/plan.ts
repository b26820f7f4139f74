import type { Random } from './random.ts'

/** Faults that befall a single step: with which probability at most. */
const perStep = {
  'crash at an await': 0.002,
  'connection lost': 0.008,
  'slow statement': 0.03,
  'publish refused': 0.15,
  'publish answer lost': 0.1,
  'published twice': 0.1,
  'publish delayed': 0.1,
  'delivery lost': 0.05,
  'delivery delayed': 0.3,
  'delivered twice': 0.15,
  'settlement lost': 0.08,
  'settlement delayed': 0.15,
  'dead letter refused': 0.5,
  'hint lost': 0.5,
} as const

/** Faults that come over everything from time to time: how many milliseconds apart at least, on average. */
const fromTimeToTime = {
  crash: 2500,
  freeze: 2500,
  'graceful restart': 4000,
  'database away': 6000,
  'broker restart': 5000,
  'network cut': 4000,
  'clock stepped back': 4000,
} as const

export type StepFault = keyof typeof perStep
export type TimedFault = keyof typeof fromTimeToTime
export type FaultKind = StepFault | TimedFault

export const stepFaults = Object.keys(perStep) as StepFault[]
export const timedFaults = Object.keys(fromTimeToTime) as TimedFault[]
export const faultKinds: readonly FaultKind[] = [...stepFaults, ...timedFaults]

/** What one run is like. Each draws anew which faults it knows and how often: a run of everything at once hides what a few find. */
export interface Plan {
  readonly faultsForMs: number
  readonly processes: { readonly api: number; readonly relay: number; readonly worker: number }
  readonly clientsPerApi: number
  readonly transactionsPerClient: number
  readonly pauseMs: number
  readonly keys: number
  /** Of the events, how many are trouble to a consumer. */
  readonly troubled: number
  readonly delayMs: number
  readonly leaseMs: number
  readonly batch: number
  /** For outside calls; the engine's own worker hands them out one by one. */
  readonly performBatch: number
  readonly inFlight: number
  readonly broker: { readonly maxBatch: number; readonly dedupWindow: number }
  readonly probability: Readonly<Record<StepFault, number>>
  /** Undefined: never. */
  readonly everyMs: Readonly<Record<TimedFault, number | undefined>>
}

/** How often a consumer tries before it gives an event up. */
export const attempts = 4

export function drawPlan(dice: Random): Plan {
  return {
    faultsForMs: dice.between(4000, 12_000),
    processes: { api: 2, relay: dice.between(2, 3), worker: dice.between(2, 3) },
    clientsPerApi: dice.between(1, 3),
    transactionsPerClient: dice.between(4, 12),
    pauseMs: dice.pick([20, 100, 300, 800]),
    keys: dice.between(1, 5),
    troubled: dice.pick([0, 0.1, 0.25]),
    delayMs: dice.pick([1, 3, 10]),
    leaseMs: dice.pick([500, 1000, 2500]),
    batch: dice.pick([1, 5, 20, 100]),
    performBatch: dice.pick([1, 1, 10]),
    inFlight: dice.pick([10, 100]),
    broker: { maxBatch: dice.pick([1, 5, 100]), dedupWindow: dice.pick([0, 500, 120_000]) },
    probability: drawProbabilities(dice),
    everyMs: drawIntervals(dice),
  }
}

function drawProbabilities(dice: Random): Plan['probability'] {
  const draw = (kind: StepFault) => (dice.chance(0.55) ? perStep[kind] * dice.fraction() : 0)
  return Object.fromEntries(stepFaults.map((kind) => [kind, draw(kind)])) as Record<StepFault, number>
}

function drawIntervals(dice: Random): Plan['everyMs'] {
  const draw = (kind: TimedFault) => (dice.chance(0.5) ? fromTimeToTime[kind] * (1 + 3 * dice.fraction()) : undefined)
  return Object.fromEntries(timedFaults.map((kind) => [kind, draw(kind)])) as Record<TimedFault, number | undefined>
}
