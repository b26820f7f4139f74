import {
  chmod,
  lchown,
  lstat,
  readFile,
  readdir,
  readlink,
  realpath,
  rm,
  rmdir,
  stat,
  writeFile,
} from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { KerpError } from '../../../kernel/errors.ts'
import type { Account } from './account.ts'
import { isRoot } from './account.ts'
import { orOwnServer } from './binaries.ts'
import { makeFolder } from './make-folder.ts'

/** What lies in KERP_DATA_DIR. */
export interface Folder {
  readonly path: string
  /** PostgreSQL's own files, or a symbolic link to where they are. */
  readonly data: string
  readonly log: string
  readonly port: string
  /** Which process started the server. */
  readonly owner: string
}

const folderHint = `Set KERP_DATA_DIR to a folder this process may write to. ${orOwnServer}`

/** Makes the folder if there is none, and really writes in it: permission bits mean nothing to root and to read-only disks. */
export async function openFolder(given: string): Promise<Folder> {
  const wanted = resolve(given)
  try {
    if (await makeFolder(wanted)) {
      // It often lies in a project: nobody wants a database in their repository.
      await writeFile(join(wanted, '.gitignore'), '*\n')
      // The user PostgreSQL runs as must get through; what is secret inside is closed by itself.
      if (isRoot()) await chmod(wanted, 0o755)
    }
    const path = await realpath(wanted)
    const probe = join(path, `.probe-${process.pid}`)
    await writeFile(probe, Buffer.alloc(4096))
    await rm(probe, { force: true })
    const inside = (name: string) => join(path, name)
    return {
      path,
      data: inside('postgres'),
      log: inside('postgres.log'),
      port: inside('postgres.port'),
      owner: inside('postgres.owner'),
    }
  } catch (cause) {
    throw new KerpError('DATA_DIR_UNUSABLE', `The data folder ${wanted} cannot be used: ${reasonOf(cause)}`, {
      cause,
      hint: folderHint,
    })
  }
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'EEXIST' || code === 'ENOTDIR') return 'it, or a folder above it, is a file'
  if (code === 'EROFS') return 'the disk is read-only'
  if (code === 'ENOSPC' || code === 'EDQUOT') return 'the disk is full'
  if (code === 'EACCES' || code === 'EPERM' || code === 'ENOENT') return `nothing may be written there (${code})`
  return message
}

/** The folder with PostgreSQL's files, checked; undefined when there are none yet. */
export async function findData(folder: Folder, major: number): Promise<string | undefined> {
  const entry = await lstat(folder.data).catch(absent)
  if (entry === undefined) return undefined
  const dataDir = await realpath(folder.data).catch(absent)
  if (dataDir === undefined) {
    const message = `PostgreSQL's files were in ${await readlink(folder.data)}, which is gone`
    throw new KerpError('DATA_DIR_UNUSABLE', message, {
      hint:
        `Bring it back, or remove ${folder.data} to start with an empty database. As root in a container: keep both on ` +
        'a volume, or choose a KERP_DATA_DIR that other users may enter, so that everything is in one place.',
    })
  }
  await checkOwner(dataDir)
  const found = await readFile(join(dataDir, 'PG_VERSION'), 'utf8').catch(absent)
  if (found === undefined) {
    const files = await readdir(dataDir)
    if (files.length === 0 && !entry.isSymbolicLink())
      return rmdir(dataDir).catch(() => undefined) as Promise<undefined>
    throw new KerpError('DATA_DIR_UNUSABLE', `${dataDir} holds no PostgreSQL database: its PG_VERSION is missing`, {
      hint: `Restore it from a backup, or move it away to start with an empty database. ${orOwnServer}`,
    })
  }
  if (Number(found) !== major) {
    const message = `${dataDir} was made by PostgreSQL ${found.trim()}, and this is PostgreSQL ${major}`
    throw new KerpError('DATA_DIR_UNUSABLE', message, {
      hint:
        `Dump it with PostgreSQL ${found.trim()} (pg_dump), move the folder away, start again and load the dump; or set ` +
        `DATABASE_URL to a PostgreSQL ${found.trim()} that serves it.`,
    })
  }
  return dataDir
}

/** PostgreSQL starts only as the user its files belong to. */
async function checkOwner(dataDir: string): Promise<void> {
  const { uid } = await stat(dataDir)
  if (process.geteuid === undefined || isRoot() || uid === process.geteuid()) return
  throw new KerpError('DATA_DIR_UNUSABLE', `${dataDir} belongs to another user (uid ${uid})`, {
    hint: `Run this as the user who started it first, or choose another KERP_DATA_DIR. ${orOwnServer}`,
  })
}

/** A folder that root copied or restored belongs to root: PostgreSQL's user gets it, without following any links. */
export async function giveTo(account: Account | undefined, dataDir: string): Promise<void> {
  if (account === undefined || (await stat(dataDir)).uid !== 0) return
  for (const entry of await readdir(dataDir, { recursive: true })) {
    await lchown(join(dataDir, entry), account.uid, account.gid)
  }
  await lchown(dataDir, account.uid, account.gid)
}

/** It lies among PostgreSQL's files, so that the two cannot be mixed up when several processes create a database. */
export const passwordFile = 'kerp.password'

export async function readPassword(dataDir: string): Promise<string> {
  const file = join(dataDir, passwordFile)
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new KerpError('DATA_DIR_UNUSABLE', `The password of the embedded PostgreSQL cannot be read from ${file}`, {
      cause,
      hint: `Restore the file, or move ${dataDir} away to start with an empty database.`,
    })
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
