import { z } from 'zod'
import { idSchema, wonSchema } from '../../kernel/schema.ts'
import type { Money } from '../../kernel/money.ts'

export const accountSchema = z.object({
  id: idSchema('payroll account'),
  employeeId: idSchema('Employee'),
  annualSalary: wonSchema(),
  openedAt: z.iso.datetime(),
  eventId: idSchema('Event').meta({ description: 'the event that opened it' }),
})
export type Account = z.output<typeof accountSchema>

/** Everybody who is hired gets one account, from which they are paid. */
export function openAccount(
  event: { eventId: string; data: { employeeId: string; annualSalary: Money } },
  id: string,
  nowMs: number,
): Account {
  const { employeeId, annualSalary } = event.data
  return { id, employeeId, annualSalary, openedAt: new Date(nowMs).toISOString(), eventId: event.eventId }
}
