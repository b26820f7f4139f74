import Fastify from 'fastify'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { messageOf, toError } from '../../kernel/errors.ts'
import { newId } from '../../kernel/ids.ts'
import { traceparentFrom } from '../../kernel/trace.ts'
import { answerBadConnection } from './bad-connection.ts'
import { readJson } from './body.ts'
import { createPathBook } from './path-book.ts'
import { ProblemError, toProblem, toProblemError } from './problem.ts'
import type { Route } from './route.ts'
import { readCall } from './route.ts'

export interface HttpLog {
  error(details: object, message: string): void
  debug(details: object, message: string): void
}

export interface ServerOptions {
  log: HttpLog
  /** Whose data the request may see and change. */
  companyOf(request: FastifyRequest): string
  /** Hears why a request could not be served now; there may be thousands for one reason, too many for a line each. */
  onUnavailable?(error: Error): void
  /** Hears of every request that was answered. */
  onAnswered?(answered: { method: string; route: string; status: number; tookMs: number }): void
}

export const maxBodyBytes = 1024 * 1024

/** A client slower than this to send its request only holds a connection. */
const requestTimeoutMs = 30_000
/** Longer than the idle time of the usual load balancers, so that they close a connection and not we, under a request. */
const keepAliveTimeoutMs = 72_000

/** An HTTP server without routes; every failure of any kind is answered by problem details. */
export function createServer({ log, companyOf, onUnavailable, onAnswered }: ServerOptions): FastifyInstance {
  const server = Fastify({
    bodyLimit: maxBodyBytes,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    forceCloseConnections: 'idle',
    // A request on a connection that is still open is served while we close, and told to go elsewhere with the next one.
    return503OnClosing: false,
    genReqId: (request) => requestId(request.headers['x-request-id']),
    clientErrorHandler: answerBadConnection,
    frameworkErrors: (error, request, reply) => fail(error, request, reply as FastifyReply),
  })
  const paths = createPathBook()
  server.addHook('onRoute', ({ method, url }) => paths.add(url, [method].flat()))
  server.decorate('companyOf', companyOf)
  let closing = false
  server.decorate('goElsewhere', () => void (closing = true))
  server.removeAllContentTypeParsers()
  server.addContentTypeParser(/^application\/([\w.-]+\+)?json/, { parseAs: 'buffer' }, readJson)

  server.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    if (closing) reply.header('connection', 'close')
  })
  server.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown'
    const answered = { method: request.method, route, status: reply.statusCode, tookMs: reply.elapsedTime }
    onAnswered?.(answered)
    log.debug({ requestId: request.id, path: pathOf(request), ...answered }, 'answered')
  })
  server.setNotFoundHandler((request, reply) => fail(nowhere(request), request, reply))
  server.setErrorHandler((error, request, reply) => fail(error, request, reply))

  function nowhere(request: FastifyRequest): ProblemError {
    const allowed = paths.methodsOf(pathOf(request))
    if (allowed.length === 0) return new ProblemError(404, 'NOT_FOUND', `nothing is served at ${pathOf(request)}`)
    const allow = allowed.join(', ')
    return new ProblemError(405, 'METHOD_NOT_ALLOWED', `${request.method} is not served here, but ${allow}`, {
      headers: { allow },
    })
  }

  function fail(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
    // Nobody is left to answer, and it is no failure of ours.
    const hungUp = request.raw.readableAborted
    const error = hungUp ? new ProblemError(400, 'REQUEST_INVALID', 'the client hung up') : toProblemError(thrown)
    const told = toError(error.cause ?? thrown)
    const details = { requestId: request.id, path: pathOf(request), err: told }
    if (error.status === 500) log.error(details, `request failed: ${messageOf(told)}`)
    else if (error.status === 503) onUnavailable?.(told)
    // Closing while the client still sends would reset the connection before it has read why.
    if (error.status === 413) reply.removeHeader('connection')
    const problem = toProblem(error, { path: pathOf(request), id: request.id })
    // As bytes: to text Fastify would add a charset, which this media type does not have.
    const body = Buffer.from(JSON.stringify(problem))
    reply
      .code(error.status)
      .headers({ 'x-request-id': request.id, ...error.headers })
      .type('application/problem+json')
      .send(body)
  }
  return server
}

/** Serves the routes: checks what comes in, encodes what goes out. */
export function serve(server: FastifyInstance, routes: readonly Route[]): void {
  for (const route of routes) {
    server.route({
      method: route.method,
      url: route.path,
      async handler(request, reply) {
        const { params, query, body } = request
        const context = {
          companyId: server.companyOf(request),
          traceparent: traceparentFrom(one(request.headers['traceparent'])),
          correlationId: request.id,
          source: 'api',
        }
        const call = { ...readCall(route, { params, query, body }), context }
        // Fastify knows how to answer errors, but not `throw undefined`.
        const answer = await route.handle(call).catch((thrown: unknown) => {
          throw toError(thrown)
        })
        reply.code(answer.status).headers({ traceparent: context.traceparent, ...answer.headers })
        return z.encode(route.responses[answer.status]!, answer.body)
      },
    })
  }
}

function requestId(given: string | string[] | undefined): string {
  return typeof given === 'string' && /^[\w.:-]{1,100}$/.test(given) ? given : newId()
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0]!
}

function one(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}

declare module 'fastify' {
  interface FastifyInstance {
    companyOf(request: FastifyRequest): string
    /** From now on, every answer is the last one on its connection. */
    goElsewhere(): void
  }
}
