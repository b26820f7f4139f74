import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * As `mkdir -p`; tells whether it made the folder. Node's own recursive mkdir never returns where a parent exists but takes
 * no children, such as /proc.
 */
export async function makeFolder(path: string): Promise<boolean> {
  try {
    await mkdir(path)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && dirname(path) !== path && (await makeFolder(dirname(path)))) return makeFolder(path)
    // Some systems say EROFS or EPERM of folders that are there.
    if (code !== 'ENOENT' && (await stat(path).catch(() => undefined))?.isDirectory()) return false
    throw error
  }
}
