import { z } from 'zod'
import { KerpError, messageOf } from './errors.ts'

/** What is declared of an event once, for everyone who publishes or consumes it. */
export interface EventType<Schema extends z.ZodType = z.ZodType> {
  readonly name: string
  readonly version: number
  readonly schema: Schema
  /** Events of one key are handled in the order they were emitted; null: in any order. */
  keyOf(data: z.output<Schema>): string | null
  /** Checks data and turns it into what travels (a bigint of won becomes a number). */
  encode(data: z.output<Schema>): unknown
  /** Checks what travelled and turns it back, bringing an older version up to date first. */
  decode(wire: unknown, version: number): z.output<Schema>
}

export type DataOf<Type> = Type extends EventType<infer Schema> ? z.output<Schema> : never

export interface EventDeclaration<Schema extends z.ZodType> {
  data: Schema
  version?: number
  key?: (data: z.output<Schema>) => string
  /** For each older version, how its data become those of the next one: `{ 1: (data) => ({ ...data, currency: 'KRW' }) }`. */
  upcast?: Readonly<Record<number, (data: never) => unknown>>
}

const namePattern = /^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+$/

export function defineEvent<Schema extends z.ZodType>(
  name: string,
  declaration: EventDeclaration<Schema>,
): EventType<Schema> {
  const { data: schema, version = 1, key, upcast = {} } = declaration
  if (!namePattern.test(name)) {
    throw new KerpError('CONFIG_INVALID', `'${name}' is not a name for an event`, {
      hint: "name it as what happened, in words with dots: 'employee.created', 'tax-invoice.issued'",
    })
  }

  function encode(data: z.output<Schema>): unknown {
    const result = z.safeEncode(schema, data)
    if (!result.success) throw invalid(result.error)
    return result.data
  }

  function decode(wire: unknown, from: number): z.output<Schema> {
    if (from > version) {
      throw new KerpError('EVENT_TOO_NEW', `${name} is of version ${from}, and this program knows ${version}`, {
        hint: 'it waits for a program that knows it',
      })
    }
    let data = wire
    for (let step = from; step < version; step++) {
      const toNext = upcast[step]
      if (!toNext)
        throw new KerpError(
          'EVENT_INVALID',
          `${name} version ${from} cannot be brought to version ${version}: upcast ${step} is missing`,
        )
      try {
        data = toNext(data as never)
      } catch (cause) {
        throw new KerpError('EVENT_INVALID', `data of ${name} are not of version ${step}: ${messageOf(cause)}`, {
          cause,
        })
      }
    }
    const result = schema.safeParse(data)
    if (!result.success) throw invalid(result.error)
    return result.data
  }

  function invalid(error: z.ZodError): KerpError {
    return new KerpError('EVENT_INVALID', `data of ${name} do not fit its schema: ${describeIssues(error)}`, {
      cause: error,
      details: error.issues.map(({ path, message }) => ({ path: path.join('.'), message })),
    })
  }

  return { name, version, schema, keyOf: (data) => (key ? key(data) : null), encode, decode }
}

function describeIssues(error: z.ZodError): string {
  return error.issues.map(({ path, message }) => (path.length ? `${path.join('.')}: ${message}` : message)).join('; ')
}
