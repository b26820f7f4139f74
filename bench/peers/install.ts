import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const folder = join(import.meta.dirname, '..')

/** What bench/package.json names, by version: everything is exact there. */
export const peers: Record<string, string> = read('package.json')!.dependencies!

/** The peers stay out of the root's `npm ci`: they come with the first benchmark. */
export function installPeers(say: (line: string) => void): void {
  const missing = Object.entries(peers).filter(([name, version]) => installed(name) !== version)
  if (missing.length === 0) return
  say(`installing into bench/node_modules: ${missing.map(([name, version]) => `${name} ${version}`).join(', ')}`)
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: folder,
    stdio: ['ignore', 2, 2],
  })
  if (npm.status !== 0) throw new Error('npm ci in bench/ failed')
}

function installed(name: string): string | undefined {
  return read(join('node_modules', name, 'package.json'))?.version
}

function read(path: string): { version?: string; dependencies?: Record<string, string> } | undefined {
  const file = join(folder, path)
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined
}
