import { z } from 'zod'
import type { Route } from './route.ts'

export interface ApiInfo {
  readonly title: string
  readonly version: string
  readonly description?: string
}

const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  instance: z.string(),
  requestId: z.string(),
  errors: z.array(z.object({ in: z.string().optional(), path: z.string(), message: z.string() })).optional(),
})

/** The OpenAPI 3.1 document of these routes, made from the very schemas that check the requests. */
export function describeApi(info: ApiInfo, routes: readonly Route[]) {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: describeOperation(route) }
  }
  return { openapi: '3.1.0', info, paths, components: { schemas: { Problem: toSchema(problemSchema) } } }
}

function describeOperation(route: Route) {
  const parameters = [...describeParameters('path', route.params), ...describeParameters('query', route.query)]
  return {
    operationId: nameOf(route),
    summary: route.summary,
    ...(parameters.length ? { parameters } : {}),
    ...(route.body
      ? { requestBody: { required: true, content: { 'application/json': { schema: toSchema(route.body) } } } }
      : {}),
    responses: describeResponses(route),
  }
}

function describeParameters(place: 'path' | 'query', schema: z.ZodType | undefined) {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = toSchema(schema) as {
    properties?: Record<string, { description?: string }>
    required?: string[]
  }
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: rest,
  }))
}

function describeResponses(route: Route) {
  const responses: Record<string, unknown> = {}
  for (const [status, schema] of Object.entries(route.responses)) {
    responses[status] = {
      description: schema.description ?? (status === '201' ? 'created' : 'done'),
      content: { 'application/json': { schema: toSchema(schema) } },
    }
  }
  responses['default'] = {
    description: 'anything that went wrong',
    content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
  }
  return responses
}

/**
 * What travels, in both directions: the input side of a codec. Where text is turned into something else on arrival (a
 * number in a query), `meta({ wire })` says what the caller should see.
 */
function toSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override({ jsonSchema }) {
      const { wire, description } = jsonSchema as { wire?: object; description?: string }
      // The format says it in a word.
      if (jsonSchema.format !== undefined) delete jsonSchema.pattern
      if (wire === undefined) return
      for (const key of Object.keys(jsonSchema)) delete (jsonSchema as Record<string, unknown>)[key]
      Object.assign(jsonSchema, wire, description === undefined ? {} : { description })
    },
  })
  return rest
}

/** `GET /api/v1/payroll/accounts/:id` → `getPayrollAccountsById`. */
function nameOf({ method, path }: Route): string {
  const words = path
    .replace(/^\/api\/v\d+/, '')
    .split('/')
    .filter(Boolean)
  const named = words.map((word) =>
    word.startsWith(':') ? `By${capital(word.slice(1))}` : word.split('-').map(capital).join(''),
  )
  return method.toLowerCase() + named.join('')
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1)
}
