import type { FastifyInstance } from 'fastify'
import type { Database } from '../engine/database/database.ts'
import { describeApi } from '../engine/http/openapi.ts'
import { ProblemError } from '../engine/http/problem.ts'
import { createServer, serve } from '../engine/http/server.ts'
import type { Metrics } from '../engine/telemetry/metrics.ts'
import type { Clock } from '../kernel/clock.ts'
import { eventRoutes } from './event-routes.ts'
import { frontPage } from './front-page.ts'
import type { Log } from './log.ts'
import { modules } from './modules.ts'
import type { Readiness } from './readiness.ts'
import { version } from './version.ts'

export interface HttpParts {
  readonly database: Database
  readonly clock: Clock
  readonly newId: () => string
  readonly log: Log
  failed(where: string, error: Error): void
  readonly metrics: Metrics
  readonly readiness: Readiness
  /** Serve the business too, or only how the process is. */
  readonly withApi: boolean
}

/** The one company there is until people sign in: then the session says which. */
export const demoCompany = 'demo'

export function buildServer(parts: HttpParts): FastifyInstance {
  const { database, log, metrics, failed, withApi } = parts
  const server = createServer({
    log,
    companyOf: () => demoCompany,
    onUnavailable: (error) => failed('api', error),
    onAnswered: metrics.answered,
  })
  serveHealth(server, parts)
  if (withApi) {
    const routes = [...modules.flatMap((module) => module.routes(parts)), ...eventRoutes(database)]
    serve(server, routes)
    serveDocuments(
      server,
      describeApi({ title: 'kerp', version, description: 'The real-time backbone of a Korean ERP' }, routes),
    )
  }
  return server
}

function serveHealth(server: FastifyInstance, { metrics, readiness, clock }: HttpParts): void {
  const startedAt = clock.monotonic()
  server.get('/healthz', () => ({
    status: 'ok',
    name: 'kerp',
    version,
    uptimeSeconds: Math.round((clock.monotonic() - startedAt) / 1000),
  }))
  server.get('/readyz', async () => {
    const missing = await readiness.missing()
    if (missing.length === 0) return { status: 'ready' }
    const detail = missing.map(({ path, message }) => `${path}: ${message}`).join('; ')
    throw new ProblemError(503, 'NOT_READY', detail, { errors: missing, headers: { 'retry-after': '2' } })
  })
  server.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()))
}

function serveDocuments(server: FastifyInstance, api: object): void {
  const document = JSON.stringify(api)
  server.get('/openapi.json', (_request, reply) => reply.type('application/json').send(document))
  server.get('/', (_request, reply) => reply.type('text/html; charset=utf-8').send(frontPage))
}
