import type { PoolClient } from 'pg'
import type { Job } from '../payload.ts'

/** Counts handled jobs and wakes whoever waits for the last one. */
export function countdown(jobs: number): { handled(): void; all: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>()
  let left = jobs
  return {
    handled() {
      if (--left === 0) resolve()
    },
    all: promise,
  }
}

/**
 * The store decides when it is drained, not the last handler: acks may still be on their way. Asked only after the last
 * handler ran, so that the question costs the run nothing but its own few milliseconds.
 */
export async function untilEmpty(isEmpty: () => Promise<boolean>): Promise<void> {
  while (!(await isEmpty())) await new Promise((resolve) => setTimeout(resolve, 2))
}

export const insertEffect =
  'insert into bench_effects (event_id, employee_id, name, annual_salary) values ($1, $2, $3, $4)'

/** Exactly once, by hand: dedup and effect in one transaction of the handler's own; a duplicate does nothing. */
export async function applyOnce(client: PoolClient, consumer: string, job: Job): Promise<void> {
  await client.query('begin')
  try {
    await effectOnce(client, consumer, job)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}

/** The same inside a transaction that somebody else opened. */
export async function effectOnce(client: PoolClient, consumer: string, job: Job): Promise<void> {
  const fresh = await client.query(
    'insert into bench_processed (consumer, event_id) values ($1, $2) on conflict do nothing returning event_id',
    [consumer, job.eventId],
  )
  if (fresh.rowCount === 0) return
  const { employeeId, name, annualSalary } = job.data
  await client.query(insertEffect, [job.eventId, employeeId, name, annualSalary])
}
