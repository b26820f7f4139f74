import type { FastifyRequest } from 'fastify'
import { messageOf } from '../../kernel/errors.ts'
import { ProblemError } from './problem.ts'

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Bytes that are not UTF-8 are refused: decoding them anyway would store a name with holes in it. */
export function readJson(
  _request: FastifyRequest,
  bytes: string | Buffer,
  done: (error: Error | null, body?: unknown) => void,
) {
  try {
    const text = typeof bytes === 'string' ? bytes : utf8.decode(bytes)
    if (text.trim() === '') throw new SyntaxError('the body is empty')
    done(null, JSON.parse(text))
  } catch (cause) {
    done(new ProblemError(400, 'INPUT_INVALID', `the body is not JSON: ${messageOf(cause)}`, { cause }))
  }
}
