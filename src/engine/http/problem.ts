import { errorCodes, isKerpError } from '../../kernel/errors.ts'
import type { ErrorCode } from '../../kernel/errors.ts'
import { isConnectionError } from '../database/connection.ts'

/** Which part of the input is wrong, and why. */
export interface InputError {
  readonly in?: 'path' | 'query' | 'body'
  /** As in `address.street`; empty for the whole. */
  readonly path: string
  readonly message: string
}

/** Problem details (RFC 9457): the body of every answer that is not a success. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: ProblemCode
  /** The path that was asked for. */
  readonly instance: string
  /** Under this id the server's log tells more. */
  readonly requestId: string
  readonly errors?: readonly InputError[]
}

/** What only HTTP can refuse; everything else has an error code of the product. */
const httpCodes = {
  REQUEST_INVALID: 'the request cannot be understood',
  METHOD_NOT_ALLOWED: 'this address does not serve that method',
  REQUEST_TIMEOUT: 'the request did not arrive in time',
  BODY_TOO_LARGE: 'the body is too large',
  MEDIA_TYPE_UNSUPPORTED: 'the body is of a type that is not understood',
  HEADERS_TOO_LARGE: 'the headers are too large',
  NOT_READY: 'the service cannot do its work now',
  INTERNAL: 'something went wrong on the server',
} as const

export type ProblemCode = ErrorCode | keyof typeof httpCodes

/** To throw where an answer needs more than a product error says. */
export class ProblemError extends Error {
  readonly status: number
  readonly code: ProblemCode
  readonly errors: readonly InputError[] | undefined
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    code: ProblemCode,
    detail: string,
    extras: { errors?: readonly InputError[]; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(detail, extras.cause === undefined ? undefined : { cause: extras.cause })
    this.name = 'ProblemError'
    this.status = status
    this.code = code
    this.errors = extras.errors
    this.headers = extras.headers ?? {}
  }
}

const statusOf: Partial<Record<ErrorCode, number>> = {
  INPUT_INVALID: 400,
  NOT_FOUND: 404,
  CONFLICT: 409,
  EVENT_TOO_LARGE: 413,
}

/** It will pass, and the caller may try again: these say nothing about the request itself. */
const passing: readonly ErrorCode[] = [
  'DATABASE_UNREACHABLE',
  'POOL_EXHAUSTED',
  'DEADLINE_EXCEEDED',
  'TRANSPORT_CLOSED',
]

/** What the framework itself refuses, by the status it chose. */
const codeOfStatus: Record<number, ProblemCode> = {
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_ALLOWED',
  408: 'REQUEST_TIMEOUT',
  413: 'BODY_TOO_LARGE',
  415: 'MEDIA_TYPE_UNSUPPORTED',
  431: 'HEADERS_TOO_LARGE',
}

/** Turns whatever was thrown into an answer. What is not known is not told: its message may hold anything. */
export function toProblemError(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error
  if (isKerpError(error)) {
    const status = statusOf[error.code]
    if (status !== undefined) return new ProblemError(status, error.code, error.message, { cause: error })
    if (passing.includes(error.code)) return unavailable(error.code, error)
  }
  if (isConnectionError(error)) return unavailable('DATABASE_UNREACHABLE', error)
  const { statusCode, code, message } = error as { statusCode?: unknown; code?: unknown; message?: string }
  const fromFramework = typeof code === 'string' && code.startsWith('FST_')
  if (fromFramework && typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
    return new ProblemError(statusCode, codeOfStatus[statusCode] ?? 'REQUEST_INVALID', message ?? '', { cause: error })
  }
  const detail = 'it was not your request; the log of the server says more under the request id'
  return new ProblemError(500, 'INTERNAL', detail, { cause: error })
}

function unavailable(code: ErrorCode, cause: unknown): ProblemError {
  return new ProblemError(503, code, 'try again in a moment', { cause, headers: { 'retry-after': '2' } })
}

export function toProblem(error: ProblemError, request: { path: string; id: string }): Problem {
  const { status, code, errors } = error
  return {
    type: `urn:kerp:problem:${code.toLowerCase().replaceAll('_', '-')}`,
    title: titleOf(code),
    status,
    detail: error.message,
    code,
    instance: request.path,
    requestId: request.id,
    ...(errors === undefined ? {} : { errors }),
  }
}

function titleOf(code: ProblemCode): string {
  return code in httpCodes ? httpCodes[code as keyof typeof httpCodes] : errorCodes[code as ErrorCode]
}
