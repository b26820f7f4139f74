import { randomBytes } from 'node:crypto'
import {
  chown,
  mkdtemp,
  open,
  readFile,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, sep } from 'node:path'
import { KerpError } from '../../../kernel/errors.ts'
import type { Account } from './account.ts'
import { canWriteIn } from './account.ts'
import { orOwnServer, systemFolder } from './binaries.ts'
import { explainInitdbFailure } from './failure.ts'
import type { Folder } from './folder.ts'
import { findData, passwordFile } from './folder.ts'
import { makeTrustedFolder } from './private-copy.ts'
import { isAlive, readLock } from './postmaster.ts'
import { run } from './run.ts'
import { memorySettings } from './settings.ts'

const workPrefix = 'postgres.init-'
const originFile = 'kerp.origin'

/**
 * Creates PostgreSQL's files in a working folder and puts them into their place in one step once they are complete. Being
 * killed meanwhile leaves only a working folder; of two processes that do it at once, the second takes what the first made.
 */
export async function createCluster(folder: Folder, native: string, major: number, account: Account | undefined) {
  const { work, inPlace } = await makeWorkFolder(folder, account)
  try {
    const made = join(work, 'data')
    await initialise(native, work, made, account)
    const target = inPlace ? folder.data : join(systemFolder, `data-${randomBytes(6).toString('hex')}`)
    // Who finds it there later, its data folder perhaps long gone, sees whose it was.
    if (!inPlace) await writeFile(join(made, originFile), folder.data)
    await putInPlace(made, target, inPlace ? undefined : folder.data)
    await syncFolder(folder.path)
  } catch (error) {
    if (!isTaken(error)) throw error
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  const dataDir = await findData(folder, major)
  if (dataDir !== undefined) return dataDir
  throw new KerpError('DATA_DIR_UNUSABLE', `PostgreSQL's files vanished from ${folder.data} while they were made`, {
    hint: 'Start again, and see what else works in that folder.',
  })
}

/** In the data folder, or where PostgreSQL's user gets to when root keeps the data folder to itself. */
async function makeWorkFolder(
  folder: Folder,
  account: Account | undefined,
): Promise<{ work: string; inPlace: boolean }> {
  const own = await makeWorkFolderIn(folder.path, account)
  if (own !== undefined) return { work: own, inPlace: true }
  let cause: unknown
  try {
    await makeTrustedFolder(systemFolder)
    await sweepWorkFolders(systemFolder)
    await sweepTemporary(systemFolder)
    const work = await makeWorkFolderIn(systemFolder, account)
    if (work !== undefined) return { work, inPlace: false }
  } catch (error) {
    cause = error
  }
  const why = cause === undefined ? 'it cannot be entered either' : (cause as Error).message
  const message =
    `The user ${account?.name}, as whom PostgreSQL runs because it refuses to run as root, cannot enter ${folder.path}, ` +
    `and ${systemFolder} cannot be used instead: ${why}`
  throw new KerpError('DATA_DIR_UNUSABLE', message, {
    cause,
    hint:
      `Set KERP_DATA_DIR to a folder whose parents others may enter (chmod o+x), or run this as an ordinary user. ` +
      orOwnServer,
  })
}

async function makeWorkFolderIn(base: string, account: Account | undefined): Promise<string | undefined> {
  const work = await mkdtemp(join(base, `${workPrefix}${process.pid}-`))
  if (account === undefined) return work
  const usable = await chown(work, account.uid, account.gid).then(
    () => canWriteIn(work, account),
    () => false,
  )
  if (usable) return work
  await rm(work, { recursive: true, force: true })
  return undefined
}

async function initialise(native: string, work: string, made: string, account: Account | undefined): Promise<void> {
  const password = join(work, 'password')
  await writeFile(password, randomBytes(24).toString('hex'), { mode: 0o600 })
  if (account !== undefined) await chown(password, account.uid, account.gid)
  // C.UTF-8 of PostgreSQL's own: the same order and upper case everywhere, whatever the system's libraries say.
  const locale = ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--encoding=UTF8']
  const login = ['--username=kerp', `--pwfile=${password}`, '--auth=scram-sha-256']
  const memory = Object.entries(await memorySettings()).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const args = ['-D', made, ...login, ...locale, ...memory, '--no-instructions']
  const result = await run(join(native, 'bin', 'initdb'), args, { account, timeoutMs: 600_000 })
  if (result.code !== 0) throw explainInitdbFailure(result.output, work)
  await rename(password, join(made, passwordFile))
}

/** Renaming over what is there fails, and so does making a link that exists: the first one wins. */
async function putInPlace(made: string, target: string, link: string | undefined): Promise<void> {
  await rename(made, target)
  if (link === undefined) return
  try {
    await symlink(target, link)
  } catch (error) {
    await rm(target, { recursive: true, force: true })
    throw error
  }
}

function isTaken(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException
  const codes =
    process.platform === 'win32' ? ['EEXIST', 'ENOTEMPTY', 'EPERM', 'EACCES'] : ['EEXIST', 'ENOTEMPTY', 'ENOTDIR']
  return (syscall === 'rename' || syscall === 'symlink') && codes.includes(code ?? '')
}

/** Working folders of processes that were killed. A young one may belong to a process that we cannot see. */
export async function sweepWorkFolders(base: string): Promise<void> {
  for (const name of await readdir(base)) {
    if (!name.startsWith(workPrefix)) continue
    const path = join(base, name)
    const ageMs = await stat(path).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    )
    const pid = Number.parseInt(name.slice(workPrefix.length), 10)
    if (ageMs < 60_000 || (ageMs < 3_600_000 && isAlive(pid))) continue
    await rm(path, { recursive: true, force: true }).catch(() => undefined)
  }
}

/**
 * Data of temporary folders that are gone, such as those of tests. Other data stay even if nothing links to them: their
 * disk may just not be mounted.
 */
async function sweepTemporary(base: string): Promise<void> {
  for (const name of await readdir(base)) {
    const path = join(base, name)
    const file = join(path, originFile)
    const [origin, age] = await Promise.all([
      readFile(file, 'utf8').catch(() => ''),
      stat(file).then(
        ({ mtimeMs }) => Date.now() - mtimeMs,
        () => 0,
      ),
    ])
    if (!origin.startsWith(`${tmpdir()}${sep}`) || age < 600_000) continue
    const linked = await realpath(origin).catch(() => undefined)
    const lock = await readLock(path).catch(() => undefined)
    if (linked === path || (lock !== undefined && isAlive(lock.pid))) continue
    await rm(path, { recursive: true, force: true }).catch(() => undefined)
  }
}

/** So that the rename survives a power cut together with what is written afterwards. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r').catch(() => undefined)
  await handle?.sync().catch(() => undefined)
  await handle?.close()
}
