import { execFile } from 'node:child_process'
import { parse } from 'node:path'
import type { Account } from './account.ts'

export interface RunResult {
  /** The exit code, or undefined when the program could not be started or was killed. */
  readonly code: number | undefined
  /** Why it could not be started: ENOENT, EACCES, ... */
  readonly errno: string | undefined
  readonly output: string
}

/**
 * What PostgreSQL's programs see of our environment: PGPORT, PGOPTIONS, LANG and the like would change what they do, and
 * their messages are read by us, so they must stay English. (On Windows libuv adds SYSTEMROOT and its kin.)
 */
export const plainEnv = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

/** A folder everybody may enter: our own may be closed to the user PostgreSQL runs as. */
export const neutralCwd = parse(process.execPath).root

/** What spawn needs to act as that user. */
export function asUser(account: Account | undefined): { uid?: number; gid?: number } {
  return account === undefined ? {} : { uid: account.uid, gid: account.gid }
}

export function run(
  file: string,
  args: readonly string[],
  options: { account?: Account | undefined; timeoutMs: number },
): Promise<RunResult> {
  const { account, timeoutMs } = options
  return new Promise((resolve) => {
    const settings = { ...asUser(account), env: plainEnv, cwd: neutralCwd, timeout: timeoutMs, windowsHide: true }
    const done = (error: (Error & { code?: unknown }) | null, stdout = '', stderr = '') => {
      const code = error === null ? 0 : error.code
      resolve({
        code: typeof code === 'number' ? code : undefined,
        errno: typeof code === 'string' ? code : undefined,
        output: `${stdout}${stderr}`.trim() || (error?.message ?? ''),
      })
    }
    try {
      execFile(file, args, settings, done)
    } catch (error) {
      done(error as Error)
    }
  })
}
