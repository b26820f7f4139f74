import type { Database } from '../../engine/database/database.ts'
import { emit } from '../../engine/outbox/emit.ts'
import type { Clock } from '../../kernel/clock.ts'
import type { EventContext } from '../../kernel/trace.ts'
import type { Employee, NewEmployee } from './employee.ts'
import { hire } from './employee.ts'
import { EmployeeCreated } from './events.ts'
import { insertEmployee } from './store.ts'

export interface PersonnelNeeds {
  readonly database: Database
  readonly clock: Clock
  readonly newId: () => string
}

/** The employee and the event exist together or not at all. */
export async function hireEmployee(
  { database, clock, newId }: PersonnelNeeds,
  context: EventContext,
  input: NewEmployee,
): Promise<Employee & { eventId: string }> {
  const { employee, created } = hire(input, newId(), clock.now())
  return database.transaction(
    async (tx) => {
      // Sent together: neither needs the answer of the other.
      const [eventId] = await Promise.all([
        emit(tx, EmployeeCreated, created, { clock, newId }),
        insertEmployee(tx, context.companyId, employee),
      ])
      return { ...employee, eventId }
    },
    { context },
  )
}
