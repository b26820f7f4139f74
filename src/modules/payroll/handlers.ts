import type { EventSubscription } from '../../engine/worker/subscription.ts'
import { on } from '../../engine/worker/subscription.ts'
import type { Clock } from '../../kernel/clock.ts'
import { EmployeeCreated } from '../personnel/index.ts'
import { openAccount } from './account.ts'
import { insertAccount } from './store.ts'

export function payrollHandlers({ clock, newId }: { clock: Clock; newId: () => string }): EventSubscription[] {
  return [
    on(EmployeeCreated, {
      name: 'payroll.employee.created',
      handle: (event, tx) => insertAccount(tx, event.companyId, openAccount(event, newId(), clock.now())),
    }),
  ]
}
