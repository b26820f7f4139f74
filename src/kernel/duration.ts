import { KerpError } from './errors.ts'

/** Milliseconds, or a number with its unit: `250ms`, `30s`, `5m`, `2h`, `7d`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

const unitMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

export function milliseconds(duration: Duration): number {
  if (typeof duration === 'number') return duration
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(duration) ?? []
  if (amount === undefined || unit === undefined) {
    throw new KerpError('CONFIG_INVALID', `'${duration}' is not a duration`, {
      hint: "write it as '250ms', '30s', '5m', '2h' or '7d'",
    })
  }
  return Number(amount) * unitMs[unit as keyof typeof unitMs]
}
