import { z } from 'zod'
import { beforeAll, pageOf, pageQuery, toPage } from '../../engine/http/page.ts'
import type { Route } from '../../engine/http/route.ts'
import { route } from '../../engine/http/route.ts'
import { KerpError } from '../../kernel/errors.ts'
import { idSchema } from '../../kernel/schema.ts'
import type { PersonnelNeeds } from './commands.ts'
import { hireEmployee } from './commands.ts'
import { employeeSchema, newEmployeeSchema } from './employee.ts'
import { findEmployee, listEmployees } from './store.ts'

const path = '/api/v1/employees'

export function personnelRoutes(needs: PersonnelNeeds): Route[] {
  return [hireRoute(needs), listRoute(needs), showRoute(needs)]
}

function hireRoute(needs: PersonnelNeeds): Route {
  return route({
    method: 'POST',
    path,
    summary: 'Hire an employee',
    body: newEmployeeSchema,
    responses: { 201: employeeSchema.extend({ eventId: idSchema('Event') }) },
    async handle({ body, context }) {
      const hired = await hireEmployee(needs, context, body)
      return { status: 201, body: hired, headers: { location: `${path}/${hired.id}` } }
    },
  })
}

function listRoute({ database }: PersonnelNeeds): Route {
  return route({
    method: 'GET',
    path,
    summary: 'List the employees, in the order they were entered',
    query: z.strictObject(pageQuery),
    responses: { 200: pageOf(employeeSchema) },
    async handle({ query: { cursor, limit }, context }) {
      const rows = await listEmployees(database, context.companyId, { after: cursor ?? beforeAll, limit: limit + 1 })
      return { status: 200, body: toPage(rows, limit, ({ id }) => id) }
    },
  })
}

function showRoute({ database }: PersonnelNeeds): Route {
  return route({
    method: 'GET',
    path: `${path}/:id`,
    summary: 'Show one employee',
    params: z.object({ id: idSchema('Employee') }),
    responses: { 200: employeeSchema },
    async handle({ params: { id }, context }) {
      const employee = await findEmployee(database, context.companyId, id)
      if (!employee) throw new KerpError('NOT_FOUND', `there is no employee ${id}`)
      return { status: 200, body: employee }
    },
  })
}
