import { createHash } from 'node:crypto'

/** One SQL statement with its values apart. `name` is the same for the same text, so Postgres parses and plans it once a connection. */
export interface Statement {
  /** The text between the values. */
  readonly parts: readonly string[]
  readonly text: string
  readonly values: readonly unknown[]
  readonly name: string
}

/** Text as Postgres takes it: without NUL, and without halves of characters. */
export function storable(text: string): string {
  return text.replaceAll('\u0000', '\ufffd').toWellFormed()
}

const brand = Symbol('statement')

/** The text and name of templates without fragments are made once: a template literal has the same strings object each time it runs. */
const known = new WeakMap<TemplateStringsArray, { text: string; name: string }>()

/**
 * Writes SQL with values in place: `` sql`select * from t where id = ${id}` ``. A value that is itself made by `sql` becomes
 * part of the text, so a condition can be put together from pieces.
 */
export function sql(strings: TemplateStringsArray, ...values: unknown[]): Statement {
  if (values.some(isStatement)) return compose(strings, values)
  let entry = known.get(strings)
  if (!entry) {
    const text = join(strings)
    entry = { text, name: nameOf(text) }
    known.set(strings, entry)
  }
  return make(strings, entry.text, values, entry.name)
}

/** A number as part of the text, where the planner has to know it: it does not look into values when it plans for all of them. */
export function literal(number: number): Statement {
  const text = String(Math.trunc(number))
  return make([text], text, [], text)
}

/** From the pieces of all, never from finished text: a `$5` may also stand inside quotes. */
function compose(strings: TemplateStringsArray, values: unknown[]): Statement {
  const parts: string[] = []
  const all: unknown[] = []
  let part = strings[0]!
  values.forEach((value, index) => {
    const pieces = isStatement(value) ? value : { parts: ['', ''], values: [value] }
    part += pieces.parts[0]!
    pieces.values.forEach((inner, position) => {
      parts.push(part)
      all.push(inner)
      part = pieces.parts[position + 1]!
    })
    part += strings[index + 1]!
  })
  parts.push(part)
  const text = join(parts)
  return make(parts, text, all, nameOf(text))
}

function join(parts: readonly string[]): string {
  return parts.reduce((before, part, index) => `${before}$${index}${part}`)
}

function make(parts: readonly string[], text: string, values: readonly unknown[], name: string): Statement {
  return { parts, text, values, name, [brand]: true } as Statement
}

function isStatement(value: unknown): value is Statement {
  return typeof value === 'object' && value !== null && brand in value
}

/** Texts put together from fragments, which have no template of their own to be remembered by. */
const names = new Map<string, string>()

function nameOf(text: string): string {
  let name = names.get(text)
  if (name === undefined) {
    name = `kerp_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`
    // Texts built from data would grow it without end; those are rare, and only lose their place here.
    if (names.size < 1000) names.set(text, name)
  }
  return name
}
