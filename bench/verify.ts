import pg from 'pg'

/** A fast run that lost or doubled effects is no result. */
export async function inspect(databaseUrl: string, jobs: number): Promise<void> {
  const client = new pg.Client(databaseUrl)
  await client.connect()
  const { rows } = await client.query<{ effects: number; events: number }>(
    'select count(*)::int effects, count(distinct event_id)::int events from bench_effects',
  )
  await client.end()
  const { effects, events } = rows[0]!
  if (effects !== jobs || events !== jobs) throw new Error(`${jobs} jobs, but ${effects} effects of ${events} events`)
}
