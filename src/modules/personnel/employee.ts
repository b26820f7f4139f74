import { z } from 'zod'
import type { DataOf } from '../../kernel/event.ts'
import { daySchema, idSchema, textSchema, wonSchema } from '../../kernel/schema.ts'
import type { EmployeeCreated } from './events.ts'

const maxNameLength = 100
const maxAnnualSalary = 1_000_000_000_000n

/** Macs send Korean in pieces (NFD); put together, one name is one text. Counted as people do: an emoji is one. */
const nameSchema = textSchema(maxNameLength * 4)
  .normalize('NFC')
  .refine((name) => [...name].length <= maxNameLength, { error: `must be at most ${maxNameLength} characters` })
  .meta({ maxLength: maxNameLength, examples: ['김하늘'] })

const salarySchema = wonSchema()
  .refine((amount) => amount >= 0n && amount <= maxAnnualSalary, { error: `must be from 0 to ${maxAnnualSalary} won` })
  .meta({ description: 'won a year', minimum: 0, maximum: Number(maxAnnualSalary), examples: [42_000_000] })

const joiningDaySchema = daySchema()
  .refine((day) => day >= '1900-01-01' && day < '2200-01-01', { error: 'must be between 1900 and 2199' })
  .meta({ examples: ['2026-03-02'] })

/** What is not known is refused instead of dropped: a misspelt field would be lost without a word. */
export const newEmployeeSchema = z.strictObject({
  name: nameSchema,
  annualSalary: salarySchema,
  joinedOn: joiningDaySchema,
})
export type NewEmployee = z.output<typeof newEmployeeSchema>

export const employeeSchema = z.object({
  id: idSchema('Employee'),
  name: z.string(),
  annualSalary: wonSchema(),
  joinedOn: daySchema(),
  createdAt: z.iso.datetime(),
})
export type Employee = z.output<typeof employeeSchema>

/** What hiring means: the employee, and what the others are told. */
export function hire(
  input: NewEmployee,
  id: string,
  nowMs: number,
): { employee: Employee; created: DataOf<typeof EmployeeCreated> } {
  const employee = { id, ...input, createdAt: new Date(nowMs).toISOString() }
  return { employee, created: { employeeId: id, ...input } }
}
