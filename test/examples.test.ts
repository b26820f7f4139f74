import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

/** The examples run as they stand, and the READMEs show them as they are. */

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const names = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'))

const outputs: Record<string, string> = {
  '01-first-event.ts': 'invoice of ₩42,000 for order A-1\nbilling.order.placed: done at attempt 1\n',
  '02-plain-pg-transaction.ts': 'tickets: 12B 박지우\nevents: 1\n',
  '03-perform-and-commit.ts': 'payments: P-1 by T-1\ncalls of the bank: 1\n',
}

describe('examples', () => {
  it('are all run here', () => {
    expect(names.sort()).toEqual(Object.keys(outputs))
  })

  it.each(Object.entries(outputs))('%s prints what it promises', { timeout: 60_000 }, async (name, output) => {
    expect(await run(process.execPath, [join(root, 'examples', name)], { cwd: root })).toEqual({
      stdout: output,
      stderr: '',
    })
  })
})

describe.each(['README.md', 'README.ko.md'])('%s', (readme) => {
  const text = readFileSync(join(root, readme), 'utf8')
  const snippets = [...text.matchAll(/<!-- (examples\/\S+) -->\n```ts\n([^]*?)```/g)].map(([, path, code]) => ({
    path: path!,
    code: code!,
  }))

  it('shows code of the examples only', () => {
    expect(snippets).toHaveLength(text.match(/```ts\n/g)!.length)
    const strays = snippets.filter(({ path, code }) => !readFileSync(join(root, path), 'utf8').includes(code))
    expect(strays, 'copy it from the example again').toEqual([])
  })

  it('links to what is there', () => {
    const targets = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, target]) => target!)
    const missing = targets.filter((target) => !existsSync(join(root, target)))
    expect(missing).toEqual([])
  })
})
