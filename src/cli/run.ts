import type { Command, Group } from './command.ts'
import { readInput, UsageError } from './command.ts'
import { commands } from './commands.ts'
import { tellError } from './errors.ts'
import { helpOf, helpOfAll, helpOfGroup } from './help.ts'
import { endWhenNobodyReads, print, say } from './output.ts'
import { nearest } from './suggest.ts'

const exitCodes = { ok: 0, failed: 1, wrongUsage: 2 } as const

export async function runCli(argv: readonly string[]): Promise<number> {
  endWhenNobodyReads()
  try {
    return await dispatch(argv)
  } catch (error) {
    if (error instanceof UsageError) {
      say(`kerp: ${error.message}`)
      return exitCodes.wrongUsage
    }
    await tellError(error)
    return exitCodes.failed
  }
}

async function dispatch(argv: readonly string[]): Promise<number> {
  const [word, ...rest] = argv
  if (word === undefined) {
    say(overview())
    return exitCodes.wrongUsage
  }
  if (asksForHelp(word) || word === 'help') {
    if (rest[0] !== undefined && !asksForHelp(rest[0])) return dispatch([...rest, '--help'])
    return show(overview())
  }
  if (word === '--version' || word === '-v') return show(`${(await import('../app/version.ts')).version}\n`)
  const entry = commands[word]
  if (!entry)
    throw new UsageError(`there is no command '${word}'${nearest(word, Object.keys(commands))}; see kerp --help`)
  const loaded = await entry.load()
  return 'commands' in loaded ? dispatchIn(word, loaded, rest) : runCommand(word, loaded, rest)
}

async function dispatchIn(name: string, group: Group, argv: readonly string[]): Promise<number> {
  const [word, ...rest] = argv
  if (word !== undefined && asksForHelp(word)) return show(helpOfGroup(name, group))
  if (word === undefined) {
    say(helpOfGroup(name, group))
    return exitCodes.wrongUsage
  }
  const command = group.commands[word]
  if (!command) {
    const known = Object.keys(group.commands)
    throw new UsageError(`there is no command '${name} ${word}'${nearest(word, known)}; see kerp ${name} --help`)
  }
  return runCommand(`${name} ${word}`, command, rest)
}

async function runCommand(name: string, command: Command, argv: readonly string[]): Promise<number> {
  const options = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv
  if (options.some(asksForHelp)) return show(helpOf(name, command))
  try {
    return (await command.run(readInput(name, command, argv))) ?? exitCodes.ok
  } catch (error) {
    if (error instanceof UsageError) error.message += `; see kerp ${name} --help`
    throw error
  }
}

function overview(): string {
  return helpOfAll(Object.fromEntries(Object.entries(commands).map(([name, { summary }]) => [name, summary])))
}

function show(text: string): number {
  print(text.trimEnd())
  return exitCodes.ok
}

function asksForHelp(word: string): boolean {
  return word === '--help' || word === '-h'
}
