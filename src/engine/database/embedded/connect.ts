import { Client } from 'pg'

export const database = 'kerp'
export const host = '127.0.0.1'

/** `denied`: something answers there and does not know the password, so it is another server, or ours with another password. */
export type Greeting =
  | { readonly kind: 'ready'; readonly version: string | undefined }
  | { readonly kind: 'denied' | 'silent'; readonly cause: Error }

/** Says hello to the server on that port, and makes sure that our database is there: its creation may have been cut off. */
export async function greet(port: number, password: string): Promise<Greeting> {
  try {
    return { kind: 'ready', version: await askVersion(port, password, database) }
  } catch (error) {
    const code = codeOf(error)
    if (code === '3D000') return createDatabase(port, password)
    if (code === '53300') return { kind: 'ready', version: undefined } // too busy to talk, but there
    return { kind: code === '28P01' || code === '28000' ? 'denied' : 'silent', cause: error as Error }
  }
}

async function createDatabase(port: number, password: string): Promise<Greeting> {
  try {
    await withClient(port, password, 'postgres', (client) => client.query(`create database ${database}`))
  } catch (error) {
    // Another process was faster: it exists, or is being made (then the unique index of pg_database objects).
    if (!['42P04', '23505'].includes(codeOf(error) ?? '')) return { kind: 'silent', cause: error as Error }
  }
  try {
    return { kind: 'ready', version: await askVersion(port, password, database) }
  } catch (error) {
    return { kind: 'silent', cause: error as Error }
  }
}

function askVersion(port: number, password: string, name: string): Promise<string | undefined> {
  return withClient(port, password, name, async (client) => {
    const { rows } = await client.query<{ server_version: string }>('show server_version')
    return rows[0]?.server_version.split(' ')[0]
  })
}

async function withClient<T>(
  port: number,
  password: string,
  name: string,
  use: (client: Client) => Promise<T>,
): Promise<T> {
  const client = new Client({
    host,
    port,
    user: 'kerp',
    password,
    database: name,
    ssl: false,
    connectionTimeoutMillis: 5_000,
    query_timeout: 60_000,
  })
  client.on('error', () => undefined) // whoever waits gets it too
  try {
    await client.connect()
    return await use(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string }).code
}
