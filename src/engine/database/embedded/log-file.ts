import { copyFile, open, stat, truncate } from 'node:fs/promises'

const maxBytes = 8 * 1024 * 1024

/** How long the log is now: what comes after belongs to the start that follows. */
export async function logLength(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  )
}

/** The last lines written after `from`. */
export async function readLog(file: string, from: number, lines: number): Promise<string> {
  const handle = await open(file, 'r').catch(() => undefined)
  if (handle === undefined) return ''
  try {
    const { size } = await handle.stat()
    const start = Math.max(size < from ? 0 : from, size - 64 * 1024)
    if (size === start) return ''
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start)
    return buffer.toString('utf8', 0, bytesRead).trim().split('\n').slice(-lines).join('\n')
  } finally {
    await handle.close()
  }
}

/**
 * PostgreSQL appends to the open file, so it can be cut off under it. Without a bound, an application that runs into a
 * constraint thousands of times a second would fill the disk.
 */
export async function boundLog(file: string): Promise<void> {
  if ((await logLength(file)) <= maxBytes) return
  await copyFile(file, `${file}.1`)
  await truncate(file)
}
