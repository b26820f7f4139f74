import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Mutant } from './mutants.ts'

const root = join(import.meta.dirname, '../..')
/** Against one that never comes to an end. */
const timeoutMs = 120_000

export interface Trial {
  /** Undefined: nobody noticed. */
  readonly caughtAt?: number
  readonly output: string
}

/** Runs the simulator on a copy of the source that has the mutant's mistake in it, until some seed finds it out. */
export async function tryMutant(mutant: Mutant, seeds: number): Promise<Trial> {
  const home = await mkdtemp(join(tmpdir(), 'kerp-mutant-'))
  try {
    await Promise.all([
      cp(join(root, 'src'), join(home, 'src'), { recursive: true }),
      cp(join(root, 'test/simulation'), join(home, 'test/simulation'), { recursive: true }),
      cp(join(root, 'package.json'), join(home, 'package.json')),
      symlink(join(root, 'node_modules'), join(home, 'node_modules')),
    ])
    await mutate(join(home, 'src', mutant.file), mutant)
    return await simulateIn(home, seeds)
  } finally {
    await rm(home, { recursive: true, force: true })
  }
}

/** Throws unless every edit fits in exactly one place: the code has moved on, and the mutant must follow. */
async function mutate(path: string, { name, edits }: Mutant): Promise<void> {
  let text = await readFile(path, 'utf8')
  for (const { from, to } of edits) {
    const places = text.split(from).length - 1
    if (places !== 1) throw new Error(`the mutant '${name}' fits in ${places} places of ${path}: ${from}`)
    text = text.replace(from, () => to)
  }
  await writeFile(path, text)
}

function simulateIn(home: string, seeds: number): Promise<Trial> {
  const main = join(home, 'test/simulation/main.ts')
  const args = [main, '--seeds', String(seeds), '--threads', '1', '--bail']
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: home, timeout: timeoutMs }, (_error, stdout, stderr) => {
      const output = stdout + stderr
      const caught = /seed (\d+) breaks a promise/.exec(stdout)?.[1]
      resolve({ output, ...(caught === undefined ? {} : { caughtAt: Number(caught) }) })
    })
  })
}
