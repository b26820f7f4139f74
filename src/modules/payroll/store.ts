import type { Database } from '../../engine/database/database.ts'
import { sql } from '../../engine/database/sql.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import type { Account } from './account.ts'

/** Times leave Postgres as the text that travels; as JavaScript dates they would be written differently. */
const columns = sql`
  id, employee_id as "employeeId", annual_salary as "annualSalary", event_id as "eventId",
  to_char(opened_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "openedAt"`

/** A plain insert: an event that were handled twice would fail here and be seen, not be swallowed. */
export async function insertAccount(tx: Tx, companyId: string, account: Account): Promise<void> {
  const { id, employeeId, annualSalary, openedAt, eventId } = account
  await tx.sql`
    insert into payroll.accounts (company_id, id, employee_id, annual_salary, opened_at, event_id)
    values (${companyId}, ${id}, ${employeeId}, ${annualSalary}, ${openedAt}, ${eventId})`
}

export function listAccounts(
  database: Database,
  companyId: string,
  page: { after: string; limit: number; employeeId: string | undefined },
): Promise<Account[]> {
  const ofEmployee = page.employeeId === undefined ? sql`true` : sql`employee_id = ${page.employeeId}`
  return database.run<Account>(sql`
    select ${columns} from payroll.accounts
    where company_id = ${companyId} and ${ofEmployee} and id > ${page.after} order by id limit ${page.limit}`)
}
