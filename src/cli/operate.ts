import type { Operations } from '../app/operations.ts'

/** Opens the system that the settings name, and closes it whatever happens. */
export async function operate<T>(work: (operations: Operations) => Promise<T>): Promise<T> {
  const { readConfig } = await import('../app/config.ts')
  const { openOperations } = await import('../app/operations.ts')
  await using operations = await openOperations(readConfig())
  return await work(operations)
}
