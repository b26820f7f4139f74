import { z } from 'zod'
import type { Database } from '../engine/database/database.ts'
import { pageOf, pageQuery, toPage } from '../engine/http/page.ts'
import type { Route } from '../engine/http/route.ts'
import { route } from '../engine/http/route.ts'
import { lifeOfEvent, recentEvents } from '../engine/outbox/lineage.ts'
import { KerpError } from '../kernel/errors.ts'
import { idSchema } from '../kernel/schema.ts'

const path = '/api/v1/events'

const moment = z.iso.datetime()
const ms = z.number().nullable()

const eventSchema = z.object({
  eventId: idSchema('Event'),
  eventType: z.string(),
  companyId: z.string(),
  key: z.string().nullable(),
  emittedAt: moment,
  data: z.unknown(),
})

const consumerSchema = z.object({
  consumer: z.string(),
  state: z.enum(['ready', 'running', 'waiting', 'done', 'dead', 'redriven', 'discarded', 'unknown']),
  attempts: z.int(),
  startedAt: moment.nullable(),
  doneAt: moment.nullable(),
  waitedMs: ms,
  tookMs: ms,
  afterMs: ms.meta({ description: 'from the emit to the committed effect' }),
  nextAttemptAt: moment.nullable(),
  lastError: z.string().nullable(),
})

const lifeSchema = eventSchema.extend({
  version: z.int(),
  traceparent: z.string().nullable(),
  correlationId: z.string().nullable(),
  causationId: z.string().nullable(),
  relayed: z.object({ at: moment, afterMs: z.number() }).nullable(),
  consumers: z.array(consumerSchema),
  caused: z.array(z.object({ eventId: z.string(), eventType: z.string() })),
})

export function eventRoutes(database: Database): Route[] {
  return [recentRoute(database), lifeRoute(database)]
}

function recentRoute(database: Database): Route {
  return route({
    method: 'GET',
    path,
    summary: 'List what happened lately, newest first',
    query: z.strictObject({ ...pageQuery, type: z.string().max(200).optional() }),
    responses: { 200: pageOf(eventSchema) },
    async handle({ query: { cursor, limit, type }, context }) {
      const wanted = { limit: limit + 1, ...(cursor ? { before: cursor } : {}), ...(type ? { type } : {}) }
      const page = toPage(await recentEvents(database, wanted), limit, ({ eventId }) => eventId)
      const items = page.items.filter(({ companyId }) => companyId === context.companyId)
      return { status: 200, body: { ...page, items } }
    },
  })
}

function lifeRoute(database: Database): Route {
  return route({
    method: 'GET',
    path: `${path}/:eventId`,
    summary: 'Show the life of one event: where it went, what became of it, and how long each step took',
    params: z.object({ eventId: idSchema('Event') }),
    responses: { 200: lifeSchema },
    async handle({ params: { eventId }, context }) {
      const life = await lifeOfEvent(database, eventId)
      if (life?.companyId !== context.companyId) throw new KerpError('NOT_FOUND', `there is no event ${eventId}`)
      return { status: 200, body: life }
    },
  })
}
