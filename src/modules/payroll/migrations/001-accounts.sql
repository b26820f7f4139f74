create schema payroll;

create table payroll.accounts (
  company_id    text not null,
  id            uuid not null,
  employee_id   uuid not null,
  annual_salary bigint not null check (annual_salary >= 0),
  opened_at     timestamptz not null,
  -- The event that opened it: from here its whole life can be looked up.
  event_id      uuid not null,
  primary key (company_id, id),
  unique (company_id, employee_id)
);
