import { createServer, Server } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyInstance } from 'fastify'
import { KerpError, messageOf } from '../../kernel/errors.ts'

/** Long enough for a busy client's next request. */
const farewellMs = 250

export interface Address {
  readonly host: string
  readonly port: number
}

/** Opens the door; the address it can be reached at. */
export async function listen(server: FastifyInstance, { host, port }: Address): Promise<string> {
  try {
    return await server.listen({ host, port })
  } catch (cause) {
    throw explainListenFailure(cause, host, port)
  }
}

function explainListenFailure(cause: unknown, host: string, port: number): KerpError {
  const { code } = cause as NodeJS.ErrnoException
  if (code === 'EADDRINUSE') {
    return new KerpError('PORT_IN_USE', `another program listens on port ${port} of ${host}`, {
      cause,
      hint: `stop it, or take another port: KERP_PORT=${port + 1} npm start`,
    })
  }
  const hint =
    code === 'EACCES'
      ? 'ports below 1024 are for the administrator: choose a higher KERP_PORT'
      : 'KERP_HOST must be an address of this machine: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks'
  return new KerpError('CONFIG_INVALID', `cannot listen on port ${port} of ${host}: ${messageOf(cause)}`, {
    cause,
    hint,
  })
}

/** Fails if the port is taken: better known before a database has been started for it. */
export async function checkPort({ host, port }: Address): Promise<void> {
  const probe = createServer()
  await new Promise<void>((resolve, reject) => {
    probe.once('error', reject)
    probe.listen({ host, port }, () => probe.close(() => resolve()))
  }).catch((cause: unknown) => {
    throw explainListenFailure(cause, host, port)
  })
}

/**
 * Takes no new connections, lets requests under way finish, and cuts off what is left after the grace time. Who is
 * connected is told with the next answer to go elsewhere: closing a connection that is idle by a hair would cost its
 * next request.
 */
export async function closeServer(server: FastifyInstance, graceMs: number): Promise<void> {
  const timer = globalThis.setTimeout(() => server.server.closeAllConnections(), graceMs)
  try {
    const { server: listener } = server
    const connections = await promisify(listener.getConnections).call(listener)
    if (listener.listening && connections > 0) {
      server.goElsewhere()
      // Not that of http, which closes the idle ones too.
      Server.prototype.close.call(listener)
      await setTimeout(farewellMs)
    }
    await server.close()
  } finally {
    clearTimeout(timer)
  }
}
