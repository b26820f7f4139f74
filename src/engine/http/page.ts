import { z } from 'zod'
import { isUuid } from '../../kernel/ids.ts'

/** Sorts before every id: after it the first page of an ascending list starts. */
export const beforeAll = '00000000-0000-0000-0000-000000000000'

const limit = z
  .string()
  .regex(/^\d{1,6}$/, { error: 'must be a whole number' })
  .transform(Number)
  .refine((count) => count >= 1 && count <= 200, { error: 'must be from 1 to 200' })
  .default(50)
  .meta({ description: 'how many items at most', wire: { type: 'integer', minimum: 1, maximum: 200, default: 50 } })

const cursor = z
  .string()
  .transform((text, check) => {
    const id = Buffer.from(text, 'base64url').toString('utf8')
    if (isUuid(id) && toCursor(id) === text) return id
    check.addIssue({ code: 'custom', message: 'is not a cursor: take it from nextCursor of the page before' })
    return z.NEVER
  })
  .optional()
  .meta({ description: 'nextCursor of the page before', wire: { type: 'string' } })

/** The query parameters of every list; `cursor` is read as the id that ended the page before. */
export const pageQuery = { limit, cursor }

export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({ items: z.array(item), nextCursor: z.string().nullable() })

/** Makes the page of rows read with one more than `limit`: that one tells whether there is a next page. */
export function toPage<Row>(rows: readonly Row[], limit: number, idOf: (row: Row) => string) {
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return { items, nextCursor: last && rows.length > limit ? toCursor(idOf(last)) : null }
}

function toCursor(id: string): string {
  return Buffer.from(id).toString('base64url')
}
