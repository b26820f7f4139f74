import { randomBytes } from 'node:crypto'
import {
  chmod,
  copyFile,
  link,
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import type { PostgresPackage } from './binaries.ts'
import { makeFolder } from './make-folder.ts'

const marker = 'kerp-complete'

/**
 * The package's files under `base`, as hard links where it is on the same file system. It is built beside its place and
 * renamed into it, so that a process that is killed meanwhile, or another one that does the same, leaves nothing half.
 */
export async function privateCopy(
  found: PostgresPackage,
  base: string,
  makeRunnable: (native: string) => Promise<boolean>,
): Promise<string> {
  await makeTrustedFolder(base)
  const target = join(base, `postgresql-${found.version}-${process.platform}-${process.arch}`)
  if (await isComplete(target)) return target

  const work = `${target}.${process.pid}-${randomBytes(4).toString('hex')}`
  try {
    await copyTree(found.native, work)
    if (!(await makeRunnable(work))) throw new Error(`the libraries' symbolic links could not be made in ${work}`)
    await writeFile(join(work, marker), String(await countFiles(work)))
    await chmod(join(work, marker), 0o644)
    await moveInto(work, target)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return target
}

/** What is started as another user must not be something that a third one put there: /tmp is open to all. */
export async function makeTrustedFolder(path: string): Promise<void> {
  if (await makeFolder(path)) await chmod(path, 0o755) // whatever the umask is
  if (process.platform === 'win32') return
  const { mode, uid } = await lstat(path).then((stat) => (stat.isDirectory() ? stat : { mode: 0o777, uid: -1 }))
  if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) throw new Error(`${path} is open to other users`)
}

async function isComplete(target: string): Promise<boolean> {
  const expected = await readFile(join(target, marker), 'utf8').catch(() => undefined)
  // Counting costs a few milliseconds and catches what sweepers of temporary folders do.
  return expected !== undefined && Number(expected) === (await countFiles(target)) - 1
}

async function countFiles(folder: string): Promise<number> {
  return (await readdir(folder, { recursive: true })).length
}

async function moveInto(work: string, target: string): Promise<void> {
  try {
    await rename(work, target)
  } catch (error) {
    if (await isComplete(target)) return // another process was faster
    if (!(await lstat(target).catch(() => undefined))) throw error
    await rm(target, { recursive: true, force: true })
    await rename(work, target)
  }
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to)
  await chmod(to, 0o755)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isDirectory()) await copyTree(source, target)
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target)
    else await takeFile(source, target)
  }
}

async function takeFile(source: string, target: string): Promise<void> {
  const { mode } = await lstat(source)
  const open = (mode & 0o100) !== 0 ? 0o755 : 0o644
  // A hard link shares its permissions: when others may not read the original, changing them would open it too.
  if ((mode & open & 0o055) === (open & 0o055) && (await linked(source, target))) return
  await copyFile(source, target)
  await chmod(target, open)
}

function linked(source: string, target: string): Promise<boolean> {
  return link(source, target).then(
    () => true,
    () => false, // another file system, or one without hard links
  )
}
