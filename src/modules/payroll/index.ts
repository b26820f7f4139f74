import { payrollHandlers } from './handlers.ts'
import { payrollRoutes } from './routes.ts'

export type { Account } from './account.ts'

/** Who is paid what. */
export const payroll = {
  name: 'payroll',
  migrations: { module: 'payroll', folder: new URL('./migrations/', import.meta.url) },
  events: [],
  handlers: payrollHandlers,
  routes: payrollRoutes,
}
