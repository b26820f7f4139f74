import { parseArgs } from 'node:util'

export interface Option {
  readonly describe: string
  /** The value's name in the help; without one it is a switch. */
  readonly value?: string
  readonly short?: string
  readonly multiple?: boolean
}

type Value<O extends Option> = O extends { value: string }
  ? O extends { multiple: true }
    ? string[] | undefined
    : string | undefined
  : boolean

export interface Input<Options extends Readonly<Record<string, Option>>> {
  readonly options: { readonly [Name in keyof Options]: Value<Options[Name]> }
  readonly args: readonly string[]
}

export interface CommandDeclaration<Options extends Readonly<Record<string, Option>>> {
  readonly summary: string
  /** Its arguments as the help writes them: `<id>`, `[id…]`. As many as are in angle brackets must be there. */
  readonly args?: readonly string[]
  readonly options: Options
  readonly examples: readonly string[]
  /** The exit code; none: all is well. */
  run(input: Input<Options>): Promise<number | void>
}

export type Command = CommandDeclaration<Readonly<Record<string, Option>>>

/** Several commands under one word: `events tail`, `events show`. */
export interface Group {
  readonly summary: string
  readonly commands: Readonly<Record<string, Command>>
}

export function command<const Options extends Readonly<Record<string, Option>>>(
  declaration: CommandDeclaration<Options>,
): Command {
  return declaration as unknown as Command
}

/** The user's mistake, to be told with how it is done right; exit code 2. */
export class UsageError extends Error {}

export function readInput(
  name: string,
  { options, args = [] }: Command,
  argv: readonly string[],
): Input<Readonly<Record<string, Option>>> {
  const parsed = parse(options, argv)
  const needed = args.filter((arg) => arg.startsWith('<'))
  if (parsed.positionals.length < needed.length) {
    throw new UsageError(`${name} needs ${needed[parsed.positionals.length]}`)
  }
  const endless = args.at(-1)?.includes('…') ?? false
  if (!endless && parsed.positionals.length > args.length) {
    throw new UsageError(`${name} does not know what to do with '${parsed.positionals[args.length]}'`)
  }
  const given = parsed.values as Readonly<Record<string, unknown>>
  const values = Object.entries(options).map(([key, { value }]) => [key, given[key] ?? (value ? undefined : false)])
  return { options: Object.fromEntries(values), args: parsed.positionals }
}

function parse(options: Readonly<Record<string, Option>>, argv: readonly string[]) {
  const table = Object.entries(options).map(([name, { value, short, multiple }]) => [
    name,
    { type: value ? 'string' : 'boolean', ...(short ? { short } : {}), ...(multiple ? { multiple } : {}) },
  ])
  try {
    return parseArgs({ args: [...argv], options: Object.fromEntries(table), allowPositionals: true, strict: true })
  } catch (error) {
    // Node's words are clear, apart from the advice on how to pass something that looks like an option.
    throw new UsageError((error as Error).message.split('. To specify')[0]!)
  }
}

/** A whole number from a flag's text. */
export function toNumber(flag: string, text: string, { min, max }: { min: number; max: number }): number {
  const number = Number(text)
  if (text.trim() !== '' && Number.isInteger(number) && number >= min && number <= max) return number
  throw new UsageError(`--${flag} must be a whole number from ${min} to ${max}, not '${text}'`)
}
