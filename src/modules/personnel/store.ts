import type { Database } from '../../engine/database/database.ts'
import type { Tx } from '../../engine/database/transaction.ts'
import { sql } from '../../engine/database/sql.ts'
import type { Employee } from './employee.ts'

type Reader = Pick<Database, 'run'>

/** Dates and times leave Postgres as the text that travels; as JavaScript dates they would take on a time zone. */
const columns = sql`
  id, name, annual_salary as "annualSalary", joined_on::text as "joinedOn",
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "createdAt"`

export async function insertEmployee(tx: Tx, companyId: string, employee: Employee): Promise<void> {
  const { id, name, annualSalary, joinedOn, createdAt } = employee
  await tx.sql`
    insert into personnel.employees (company_id, id, name, annual_salary, joined_on, created_at)
    values (${companyId}, ${id}, ${name}, ${annualSalary}, ${joinedOn}, ${createdAt})`
}

export async function findEmployee(reader: Reader, companyId: string, id: string): Promise<Employee | undefined> {
  const [employee] = await reader.run<Employee>(sql`
    select ${columns} from personnel.employees where company_id = ${companyId} and id = ${id}`)
  return employee
}

export function listEmployees(
  reader: Reader,
  companyId: string,
  page: { after: string; limit: number },
): Promise<Employee[]> {
  return reader.run<Employee>(sql`
    select ${columns} from personnel.employees
    where company_id = ${companyId} and id > ${page.after} order by id limit ${page.limit}`)
}
