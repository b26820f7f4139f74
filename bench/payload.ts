/** The same message for everybody: about 200 bytes of JSON, with the fields of a domain event. */
export interface Job {
  eventId: string
  key: string
  eventType: string
  data: { employeeId: string; name: string; department: string; annualSalary: number }
}

/** Job n is always the same, so that a preparing and a draining process agree without talking. */
export function job(n: number, keys: number): Job {
  const key = `employee-${n % keys}`
  return {
    eventId: `0199a6e8-7c00-7000-8000-${n.toString(16).padStart(12, '0')}`,
    key,
    eventType: 'employee.created',
    data: { employeeId: key, name: '김하늘', department: 'research and development', annualSalary: 48_000_000 + n },
  }
}

/** The backlog in slices: bulk enqueueing in one call would measure the memory of the client. */
export function* slices(jobs: number, keys: number, size: number): Generator<Job[]> {
  for (let from = 0; from < jobs; from += size) {
    yield Array.from({ length: Math.min(size, jobs - from) }, (_, i) => job(from + i, keys))
  }
}
