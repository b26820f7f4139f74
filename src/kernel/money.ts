import { KerpError } from './errors.ts'

/** Won, always whole and never a float: a bigint. */
export type Money = bigint

export function won(amount: bigint | number | string): Money {
  if (typeof amount === 'number' && !Number.isSafeInteger(amount)) {
    throw new KerpError('INPUT_INVALID', `${amount} is not a whole number of won`)
  }
  if (typeof amount === 'string' && !/^-?\d+$/.test(amount)) {
    throw new KerpError('INPUT_INVALID', `'${amount}' is not a whole number of won`)
  }
  return BigInt(amount)
}

/** Splits an amount by weights so that the parts add up to it exactly; what does not divide goes to the first parts. */
export function allocate(amount: Money, weights: readonly bigint[]): Money[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0n)
  if (total <= 0n) throw new KerpError('INPUT_INVALID', 'weights must add up to more than zero')
  const parts = weights.map((weight) => (amount * weight) / total)
  let rest = amount - parts.reduce((sum, part) => sum + part, 0n)
  const step = rest < 0n ? -1n : 1n
  for (let i = 0; rest !== 0n; i = (i + 1) % parts.length) {
    if (weights[i] === 0n) continue
    parts[i]! += step
    rest -= step
  }
  return parts
}

export function formatWon(amount: Money, locale = 'ko-KR'): string {
  return new Intl.NumberFormat(locale, { style: 'currency', currency: 'KRW' }).format(amount)
}
