import { expect, test } from 'vitest'
import { z } from 'zod'
import { idSchema, wonSchema } from '../../kernel/schema.ts'
import { describeApi } from './openapi.ts'
import { pageQuery } from './page.ts'
import { route } from './route.ts'

const thing = z.object({ id: idSchema('Thing'), price: wonSchema() })

test('describes what travels: parameters, bodies, answers and problems', () => {
  const { openapi, paths } = describeApi({ title: 'test', version: '1' }, [
    route({
      method: 'GET',
      path: '/api/v1/price-lists/:id/things',
      summary: 'List things',
      params: z.object({ id: idSchema('PriceList') }),
      query: z.strictObject({ ...pageQuery, colour: z.string().optional() }),
      responses: { 200: z.object({ items: z.array(thing) }) },
      handle: async () => ({ status: 200, body: { items: [] } }),
    }),
    route({
      method: 'POST',
      path: '/api/v1/price-lists/:id/things',
      summary: 'Make a thing',
      body: z.strictObject({ price: wonSchema() }),
      responses: { 201: thing },
      handle: async ({ body }) => ({ status: 201, body: { id: '', ...body } }),
    }),
  ])
  expect(openapi).toBe('3.1.0')
  expect(Object.keys(paths)).toEqual(['/api/v1/price-lists/{id}/things'])
  const { get, post } = paths['/api/v1/price-lists/{id}/things'] as Record<string, Record<string, unknown>>
  expect(get!['operationId']).toBe('getPriceListsByIdThings')
  expect(get!['parameters']).toMatchObject([
    { name: 'id', in: 'path', required: true, schema: { type: 'string', format: 'uuid' } },
    { name: 'limit', in: 'query', required: false, schema: { type: 'integer', minimum: 1, maximum: 200, default: 50 } },
    { name: 'cursor', in: 'query', required: false, schema: { type: 'string' } },
    { name: 'colour', in: 'query', required: false, schema: { type: 'string' } },
  ])
  expect(post).toMatchObject({
    requestBody: {
      content: {
        'application/json': { schema: { properties: { price: { type: 'integer' } }, additionalProperties: false } },
      },
    },
    responses: {
      201: { content: { 'application/json': { schema: { properties: { price: { type: 'integer' } } } } } },
      default: { content: { 'application/problem+json': {} } },
    },
  })
})
