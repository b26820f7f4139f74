import { z } from 'zod'
import type { EventContext } from '../../kernel/trace.ts'
import type { InputError } from './problem.ts'
import { ProblemError } from './problem.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

type None = z.ZodUndefined
type Responses = Readonly<Record<number, z.ZodType>>

/** A request whose parts have been checked against the route's schemas. */
export interface Call<Params extends z.ZodType = None, Query extends z.ZodType = None, Body extends z.ZodType = None> {
  readonly params: z.output<Params>
  readonly query: z.output<Query>
  readonly body: z.output<Body>
  /** For whom it is done: events emitted because of it carry this along. */
  readonly context: EventContext
}

/** One of the declared responses. Its body is encoded by its schema, so nothing undeclared gets out. */
export type Answer<R extends Responses> = {
  [Status in keyof R & number]: {
    readonly status: Status
    readonly body: z.output<R[Status]>
    readonly headers?: Readonly<Record<string, string>>
  }
}[keyof R & number]

export interface RouteDeclaration<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  R extends Responses,
> {
  readonly method: Method
  /** As in `/api/v1/employees/:id`. */
  readonly path: string
  readonly summary: string
  readonly params?: Params
  readonly query?: Query
  readonly body?: Body
  readonly responses: R
  handle(call: Call<Params, Query, Body>): Promise<Answer<NoInfer<R>>>
}

/** A declared route, whatever its types: to be served and to be described. */
export interface Route extends Omit<RouteDeclaration<z.ZodType, z.ZodType, z.ZodType, Responses>, 'handle'> {
  handle(call: {
    params: unknown
    query: unknown
    body: unknown
    context: EventContext
  }): Promise<{ status: number; body: unknown; headers?: Readonly<Record<string, string>> }>
}

export function route<
  R extends Responses,
  Params extends z.ZodType = None,
  Query extends z.ZodType = None,
  Body extends z.ZodType = None,
>(declaration: RouteDeclaration<Params, Query, Body, R>): Route {
  return declaration as unknown as Route
}

/** Checks all parts, so that the caller hears of everything that is wrong at once. */
export function readCall(route: Route, raw: { params: unknown; query: unknown; body: unknown }) {
  const errors: InputError[] = []
  function read(place: 'path' | 'query' | 'body', schema: z.ZodType | undefined, value: unknown): unknown {
    if (schema === undefined) return undefined
    const result = schema.safeParse(value)
    if (result.success) return result.data
    errors.push(
      ...result.error.issues.map((issue) => ({ in: place, path: issue.path.join('.'), message: issue.message })),
    )
    return undefined
  }
  const call = {
    params: read('path', route.params, raw.params),
    query: read('query', route.query, raw.query),
    body: read('body', route.body, raw.body),
  }
  if (errors.length === 0) return call
  const detail = errors.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join('; ')
  throw new ProblemError(400, 'INPUT_INVALID', detail, { errors })
}
