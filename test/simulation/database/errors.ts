/** A failure as `pg` hands it on: an error with Postgres' code. */
export function sqlError(code: string, message: string): Error & { code: string } {
  return Object.assign(new Error(message), { code })
}

export const connectionLost = () => new Error('Connection terminated unexpectedly')
export const notQueryable = () => new Error('Client was closed and is not queryable')
