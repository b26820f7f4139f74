import { EmployeeCreated } from './events.ts'
import { personnelRoutes } from './routes.ts'

export { hireEmployee } from './commands.ts'
export type { Employee } from './employee.ts'
export { EmployeeCreated }

/** Who works here. */
export const personnel = {
  name: 'personnel',
  migrations: { module: 'personnel', folder: new URL('./migrations/', import.meta.url) },
  events: [EmployeeCreated],
  handlers: () => [],
  routes: personnelRoutes,
}
