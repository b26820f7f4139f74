import { readFile } from 'node:fs/promises'
import { KerpError } from '../../../kernel/errors.ts'
import { run } from './run.ts'

/**
 * The user PostgreSQL runs as. PostgreSQL refuses to run as root, so root lends it an existing ordinary user; everybody
 * else runs it as themselves, which is `undefined` here.
 */
export interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

const candidates = ['kerp', 'postgres', 'nobody']

export function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/** Data that exist already decide: PostgreSQL only touches files that belong to the user it runs as. */
export async function chooseAccount(owner?: { uid: number; gid: number }): Promise<Account | undefined> {
  if (!isRoot()) return undefined
  const known = await readPasswd()
  if (owner !== undefined && owner.uid !== 0) {
    return known.find((account) => account.uid === owner.uid) ?? { name: String(owner.uid), ...owner }
  }
  for (const name of candidates) {
    const account = known.find((each) => each.name === name && each.uid !== 0)
    if (account !== undefined) return account
  }
  throw new KerpError(
    'EMBEDDED_UNAVAILABLE',
    'PostgreSQL cannot run as root, and /etc/passwd names no user to run it as',
    {
      hint: `Run this as an ordinary user, add one of the users ${candidates.join(', ')}, or set DATABASE_URL.`,
    },
  )
}

/** Really tries it as that user: permission bits alone miss parents, ACLs, security modules and odd file systems. */
export async function canWriteIn(folder: string, account: Account | undefined): Promise<boolean> {
  if (account === undefined) return true
  const script = 'cd -- "$1" && : > .probe && rm .probe'
  const result = await run('/bin/sh', ['-c', script, 'sh', folder], { account, timeoutMs: 10_000 })
  return result.code === 0
}

async function readPasswd(): Promise<Account[]> {
  const text = await readFile('/etc/passwd', 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    const [name, , uid, gid] = line.split(':')
    return name && /^\d+$/.test(uid ?? '') && /^\d+$/.test(gid ?? '')
      ? [{ name, uid: Number(uid), gid: Number(gid) }]
      : []
  })
}
