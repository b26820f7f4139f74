create schema personnel;

create table personnel.employees (
  company_id    text not null,
  id            uuid not null,
  name          text not null,
  annual_salary bigint not null check (annual_salary >= 0),
  joined_on     date not null,
  created_at    timestamptz not null,
  primary key (company_id, id)
);
