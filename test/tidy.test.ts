import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

/** The rules of the house. Each message says what to do instead. */

const root = resolve(import.meta.dirname, '..')
const src = join(root, 'src')

interface Source {
  /** As in `engine/worker/apply.ts`. */
  readonly path: string
  readonly text: string
}

const sources: Source[] = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ path: name.replaceAll('\\', '/'), text: readFileSync(join(src, name), 'utf8') }))
const shipped = sources.filter(({ path }) => !path.endsWith('.test.ts'))

/** Who may import whom: a room and the rooms it may look into, itself always among them. */
const mayImport: Record<string, readonly string[]> = {
  kernel: ['kernel'],
  engine: ['kernel', 'engine'],
  transports: ['kernel', 'engine', 'transports'],
  adapters: ['kernel', 'engine', 'adapters'],
  modules: ['kernel', 'engine', 'modules'],
  testing: ['kernel', 'engine', 'transports', 'testing'],
  app: ['kernel', 'engine', 'transports', 'adapters', 'modules', 'testing', 'app'],
  cli: ['kernel', 'app', 'cli'],
}

function room(path: string): string {
  return path.includes('/') ? path.slice(0, path.indexOf('/')) : 'index'
}

function moduleOf(path: string): string | undefined {
  return /^(?:modules|transports)\/([^/]+)\//.exec(path)?.[1]
}

/** The files of ours that a file imports, relative to src. */
function importsOf({ path, text }: Source): string[] {
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, specifier]) => specifier!)
  return specifiers.map((specifier) => relative(src, resolve(src, dirname(path), specifier)).replaceAll('\\', '/'))
}

function brokenBorders({ path, text }: Source): string[] {
  const allowed = mayImport[room(path)]
  if (!allowed) return []
  return importsOf({ path, text }).flatMap((target) => {
    if (!allowed.includes(room(target))) {
      return [`${path} imports ${target}: ${room(path)} may only know ${allowed.join(', ')}; pass it in as a parameter`]
    }
    const other = moduleOf(target)
    const isForeign = other !== undefined && room(target) === room(path) && other !== moduleOf(path)
    if (isForeign && !target.endsWith('/index.ts')) {
      return [`${path} imports ${target}: import from ${room(target)}/${other}/index.ts, or export it there`]
    }
    return []
  })
}

describe('the house', () => {
  it('keeps its borders', () => {
    // A test may look at what its own room may not know: it puts things together as the app does.
    expect(shipped.flatMap(brokenBorders)).toEqual([])
  })

  it('would notice a broken border', () => {
    const broken = [
      { path: 'kernel/money.ts', text: "import { emit } from '../engine/outbox/emit.ts'" },
      { path: 'engine/engine.ts', text: "await import('../transports/memory/index.ts')" },
      { path: 'modules/payroll/handlers.ts', text: "import { findEmployee } from '../personnel/store.ts'" },
      { path: 'cli/start.ts', text: "export { emit } from '../engine/outbox/emit.ts'" },
    ]
    expect(broken.map(brokenBorders).map(({ length }) => length)).toEqual([1, 1, 1, 1])
  })

  it('has no circles between modules', () => {
    const edges = new Map<string, Set<string>>()
    for (const source of shipped.filter(({ path }) => room(path) === 'modules')) {
      for (const target of importsOf(source)) {
        const [from, to] = [moduleOf(source.path), moduleOf(target)]
        if (from && to && from !== to && room(target) === 'modules')
          edges.set(from, (edges.get(from) ?? new Set()).add(to))
      }
    }
    const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
      [...(edges.get(from) ?? [])].some((next) => next === to || (!seen.has(next) && reaches(next, to, seen.add(next))))
    const circles = [...edges.keys()].filter((name) => reaches(name, name))
    expect(circles, 'modules that need each other: let one of them react to an event of the other').toEqual([])
  })

  it('reads the environment in one place', () => {
    const readers = shipped.filter(({ path, text }) => /process\.env\b/.test(text) && !/^(app|testing)\//.test(path))
    expect(names(readers), 'take it as an option; app/config.ts reads the environment').toEqual([])
  })

  it('hands clock, ids and timers to the modules', () => {
    const pattern =
      /\bDate\.now\(|new Date\(\)|\bMath\.random\(|\bset(Timeout|Interval|Immediate)\(|\bperformance\.now\(|randomUUID\(/
    const impure = shipped.filter(({ path, text }) => room(path) === 'modules' && pattern.test(text))
    expect(names(impure), 'take a Clock and newId as parameters (kernel/clock.ts, kernel/ids.ts)').toEqual([])
  })

  it("keeps a module's SQL in its store.ts", () => {
    const strays = shipped.filter(
      ({ path, text }) => room(path) === 'modules' && !path.endsWith('/store.ts') && /\bsql\s*(<[^`]*>)?`/.test(text),
    )
    expect(names(strays), 'move the statement into store.ts').toEqual([])
  })

  it('has a front door that can be seen whole, and files with one subject', () => {
    const tooLong = shipped.filter(({ path, text }) => text.split('\n').length > (path === 'index.ts' ? 60 : 300))
    expect(names(tooLong), 'split it by subject').toEqual([])
  })

  it('numbers its migrations without gaps', () => {
    const folders = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('migrations'),
    )
    for (const folder of folders) {
      const numbers = readdirSync(join(src, folder)).map((name) => Number(/^(\d{3})-[a-z0-9-]+\.sql$/.exec(name)?.[1]))
      expect(numbers, `${folder}: name them 001-what.sql, 002-…`).toEqual(numbers.map((_, index) => index + 1))
    }
  })

  it('leaves no marks of unfinished work', () => {
    const marked = sources.filter(({ text }) => /\b(TODO|FIXME|XXX|HACK)\b|@ts-ignore|@ts-nocheck|\.only\(/.test(text))
    expect(names(marked), 'finish it, or write it down where it is planned').toEqual([])
  })
})

function names(found: readonly Source[]): string[] {
  return found.map(({ path }) => path)
}
