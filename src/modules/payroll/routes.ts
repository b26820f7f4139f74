import { z } from 'zod'
import type { Database } from '../../engine/database/database.ts'
import { beforeAll, pageOf, pageQuery, toPage } from '../../engine/http/page.ts'
import type { Route } from '../../engine/http/route.ts'
import { route } from '../../engine/http/route.ts'
import { idSchema } from '../../kernel/schema.ts'
import { accountSchema } from './account.ts'
import { listAccounts } from './store.ts'

export function payrollRoutes({ database }: { database: Database }): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/payroll/accounts',
      summary: 'List the payroll accounts, in the order they were opened',
      query: z.strictObject({ ...pageQuery, employeeId: idSchema('Employee').optional() }),
      responses: { 200: pageOf(accountSchema) },
      async handle({ query: { cursor, limit, employeeId }, context }) {
        const rows = await listAccounts(database, context.companyId, {
          after: cursor ?? beforeAll,
          limit: limit + 1,
          employeeId,
        })
        return { status: 200, body: toPage(rows, limit, ({ id }) => id) }
      },
    }),
  ]
}
