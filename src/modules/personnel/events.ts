import { z } from 'zod'
import { defineEvent } from '../../kernel/event.ts'
import { daySchema, idSchema, wonSchema } from '../../kernel/schema.ts'

export const EmployeeCreated = defineEvent('employee.created', {
  version: 1,
  data: z.object({
    employeeId: idSchema('Employee'),
    name: z.string(),
    annualSalary: wonSchema(),
    joinedOn: daySchema(),
  }),
  key: ({ employeeId }) => employeeId,
})
