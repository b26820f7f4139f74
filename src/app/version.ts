import { readFileSync } from 'node:fs'

/** The package's version, from its manifest: the same place from the sources and from what was built. */
export const version: string = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version
