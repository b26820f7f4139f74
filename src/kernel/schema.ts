import { z } from 'zod'
import type { Money } from './money.ts'

/** An amount of won: a whole JSON number outside, a bigint inside. */
export const wonSchema = () =>
  z.codec(z.int().meta({ description: 'an amount in won' }), z.bigint(), {
    decode: (amount) => BigInt(amount) as Money,
    encode: (amount) => Number(amount),
  })

/** The id of something, a UUID; the name of the thing is for the reader and for the contract documents. */
export const idSchema = (of: string) =>
  z.uuid().meta({ description: `id of ${/^[AEIOU]/.test(of) ? 'an' : 'a'} ${of}` })

/** Text a person typed: trimmed, not empty, and without the NUL that Postgres cannot store. */
export const textSchema = (maxLength: number) =>
  z
    .string()
    .trim()
    .min(1)
    .max(maxLength)
    // Half of a surrogate pair is not text either: it cannot be written as UTF-8.
    .refine((text) => !text.includes('\u0000') && text.isWellFormed(), { error: 'must not contain control characters' })

/** A day as in `2026-11-20`. */
export const daySchema = () => z.iso.date()
