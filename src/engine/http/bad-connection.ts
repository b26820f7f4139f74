import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { newId } from '../../kernel/ids.ts'
import { ProblemError, toProblem } from './problem.ts'

/** Answers what never became a request: not HTTP, too many headers, or too slow. */
export function answerBadConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) return void socket.destroy()
  const refusal =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? new ProblemError(431, 'HEADERS_TOO_LARGE', 'send fewer or shorter headers')
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new ProblemError(408, 'REQUEST_TIMEOUT', 'send the request faster')
        : new ProblemError(400, 'REQUEST_INVALID', 'this is not HTTP')
  const body = JSON.stringify(toProblem(refusal, { path: '', id: newId() }))
  const head = [
    `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
