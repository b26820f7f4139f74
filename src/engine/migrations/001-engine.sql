-- The engine's own tables. Business modules have schemas of their own and never touch these.

-- Who consumes what. In the database, not in code, so that an event emitted by any version of any program reaches everyone.
create table kerp.consumers (
  id   int generated always as identity primary key,
  name text not null unique
);

create table kerp.subscriptions (
  event_type  text not null,
  consumer_id int not null references kerp.consumers (id),
  primary key (event_type, consumer_id)
);

-- Where an event goes: straight to its consumers in this database, or through the outbox to a broker. '*' is for all others;
-- without a row it is the outbox, from which nothing is lost while nobody has said where to.
create table kerp.routes (
  event_type text primary key,
  direct     boolean not null
);

-- What was emitted, never changed, for the time it is kept. Ids are UUIDv7, so a range of ids is a day: a partition that is
-- dropped whole. Ids that somebody else made otherwise go to the default partition.
create table kerp.events (
  event_id   uuid not null primary key,
  event_type text not null,
  company_id text not null,
  key        text constraint key_has_at_most_500_characters check (length(key) <= 500),
  emitted_at timestamptz not null default clock_timestamp(),
  envelope   text not null
) partition by range (event_id);
create table kerp.events_other partition of kerp.events default;
create index events_other_age on kerp.events_other (emitted_at);

-- Events on their way to a broker; the relay deletes what the broker has confirmed.
create table kerp.outbox_events (
  shard      smallint not null,
  id         bigint generated always as identity,
  event_id   uuid not null,
  key        text,
  emitted_at timestamptz not null default clock_timestamp(),
  envelope   text not null,
  primary key (shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index outbox_events_key on kerp.outbox_events (shard, key, id) where key is not null;

-- One row for each event and consumer that it still has to reach, where this database is the broker.
-- due_at: null = ready; otherwise not before then: delayed, waiting for its next attempt, or (leased) handed out until then.
-- claims: how often it was handed out, which fences a worker that lost its lease. attempt: failures that were its own fault.
create table kerp.deliveries (
  id          bigint generated always as identity,
  consumer_id int not null,
  lane        smallint not null,
  attempt     smallint not null default 0,
  claims      int not null default 0,
  due_at      timestamptz,
  leased      boolean not null default false,
  event_id    uuid not null,
  key         text,
  last_error  text,
  envelope    text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index deliveries_ready on kerp.deliveries (consumer_id, lane, id) where due_at is null;
create index deliveries_waiting on kerp.deliveries (consumer_id, lane, due_at, id) where due_at is not null;
-- A key whose earlier event was tried and is not done holds back its later ones.
create index deliveries_blocking on kerp.deliveries (consumer_id, key, id) where due_at is not null and claims > 0 and key is not null;

-- Exactly-once on brokers that deliver at least once: what a consumer has done, written in the transaction of its effect.
create table kerp.processed_events (
  event_id    uuid not null,
  consumer_id int not null,
  primary key (event_id, consumer_id)
) partition by range (event_id);
create table kerp.processed_events_other partition of kerp.processed_events default;

-- What was done when, a row for each batch instead of each event: this is how the life of an event is told at no cost to speed.
-- hop: 0 = the relay, otherwise the consumer. span: from the first to the last event's millisecond.
create table kerp.receipts (
  hop        int not null,
  started_at timestamptz not null,
  done_at    timestamptz not null default clock_timestamp(),
  span       int8range not null,
  -- 16 bytes each: as an array of text they would be parsed, a fifth of the time of a batch that does nothing else.
  event_ids  bytea not null,
  -- Only where one of them needed more than its first attempt.
  attempts   smallint[]
);
alter table kerp.receipts alter column event_ids set storage external;
create index receipts_span on kerp.receipts using gist (span);
create index receipts_age on kerp.receipts (done_at);

-- The answer of an outside call, kept until its effect has committed, so that a failed commit does not call again.
create table kerp.perform_results (
  consumer_id int not null,
  event_id    uuid not null,
  result      text,
  kept_at     timestamptz not null default now(),
  primary key (consumer_id, event_id)
);

-- What could not be done, whatever the broker. A row stays when it is redriven or discarded: who did that, and when.
create table kerp.dead_letters (
  id          uuid primary key,
  consumer    text not null,
  event_id    uuid,
  event_type  text,
  company_id  text,
  reason      text not null,
  error       jsonb not null,
  fingerprint text not null,
  attempts    int not null,
  envelope    text not null,
  first_at    timestamptz,
  died_at     timestamptz not null default now(),
  state       text not null default 'dead' check (state in ('dead', 'redriven', 'discarded')),
  resolved_at timestamptz,
  resolved_by text
);
create unique index dead_letters_once on kerp.dead_letters (consumer, event_id) where state = 'dead';
create index dead_letters_event on kerp.dead_letters (event_id);
create index dead_letters_list on kerp.dead_letters (state, id);

-- Processes at work. Each holds an advisory lock on its key for as long as it lives, so a row whose lock is free has died.
create table kerp.processes (
  lock_key   int primary key,
  started_at timestamptz not null default now()
);

-- Events of one key share one of 16 lanes, which one transaction at a time takes from; those without a key are in the 17th.
create function kerp.lane_of(key text) returns smallint language sql immutable parallel safe as
$$ select coalesce(hashtext(key) & 15, 16)::smallint $$;

-- The moment a UUIDv7 was made.
create function kerp.time_of(id uuid) returns timestamptz language sql immutable parallel safe as $$
  select to_timestamp(('x' || lpad(substr(replace(id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- Emits events in the caller's transaction: `select kerp.emit('[{"event_id": …, "envelope": "…"}]')`. A function, so that every
-- client in every language and version does the same with one short statement, and its plan is kept with the session.
create function kerp.emit(batch text) returns void language plpgsql as $$
begin
  with emitted as materialized (
    select e.event_id, e.event_type, e.company_id, e.key, e.envelope, e.place,
           coalesce(r.direct, (select direct from kerp.routes where event_type = '*'), false) as direct
    from rows from (json_to_recordset(batch::json) as (event_id uuid, event_type text, company_id text, key text, envelope text))
         with ordinality as e (event_id, event_type, company_id, key, envelope, place)
    left join kerp.routes r using (event_type)
  ), history as (
    insert into kerp.events (event_id, event_type, company_id, key, envelope)
    select event_id, event_type, company_id, key, envelope from emitted
  ), direct as (
    insert into kerp.deliveries (consumer_id, lane, event_id, key, envelope)
    select s.consumer_id, kerp.lane_of(e.key), e.event_id, e.key, e.envelope
    from emitted e join kerp.subscriptions s using (event_type)
    where e.direct order by e.place
  )
  insert into kerp.outbox_events (shard, event_id, key, envelope)
  select hashtext(coalesce(key, event_id::text)) & 7, event_id, key, envelope from emitted where not direct order by place;
end $$;

-- The id that sorts before every UUIDv7 of that day and after.
create function kerp.first_id_of(day date) returns uuid language sql immutable as $$
  select (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-0000-0000-000000000000')::uuid
  from lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') as h
$$;

-- Makes the partitions of the coming days. One that cannot be made (its ids are already in the default one) is left out.
create function kerp.make_partitions(days_ahead int) returns void language plpgsql as $$
declare
  day date;
  parent text;
  part text;
begin
  perform pg_advisory_xact_lock(5377301121);
  for day in select generate_series((now() at time zone 'utc')::date - 1, (now() at time zone 'utc')::date + days_ahead, '1 day')::date loop
    foreach parent in array array['events', 'processed_events'] loop
      part := parent || '_' || to_char(day, 'YYYYMMDD');
      continue when to_regclass('kerp.' || part) is not null;
      begin
        execute format('create table kerp.%I partition of kerp.%I for values from (%L) to (%L)',
          part, parent, kerp.first_id_of(day), kerp.first_id_of(day + 1));
      exception when check_violation then
        raise warning 'kerp: no partition % was made: the default one already holds ids of that day', part;
      end;
    end loop;
  end loop;
end $$;

-- Drops what is older than that many days, whole days at a time.
create function kerp.drop_history(keep_days int) returns int language plpgsql as $$
declare
  part regclass;
  dropped int := 0;
begin
  for part in
    select c.oid::regclass from pg_class c join pg_inherits i on i.inhrelid = c.oid
    where i.inhparent in ('kerp.events'::regclass, 'kerp.processed_events'::regclass)
      and c.relname ~ '_\d{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < (now() at time zone 'utc')::date - keep_days
  loop
    execute format('drop table %s', part);
    dropped := dropped + 1;
  end loop;
  delete from kerp.events_other where emitted_at < now() - make_interval(days => keep_days);
  -- Of a worker that kept an answer after another had committed the effect.
  delete from kerp.perform_results r using kerp.processed_events p
  where p.event_id = r.event_id and p.consumer_id = r.consumer_id and r.kept_at < now() - interval '1 hour';
  delete from kerp.perform_results where kept_at < now() - make_interval(days => keep_days);
  delete from kerp.receipts where done_at < now() - make_interval(days => keep_days);
  return dropped;
end $$;

select kerp.make_partitions(7);
