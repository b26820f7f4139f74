import type { Command, Group, Option } from './command.ts'

export function helpOf(name: string, { summary, args = [], options, examples }: Command): string {
  const usage = ['kerp', name, ...args, ...(Object.keys(options).length ? ['[options]'] : [])].join(' ')
  const all: [string, string][] = Object.entries(options).map(([flag, option]) => [
    flagText(flag, option),
    option.describe,
  ])
  return sections([
    `${summary}.`,
    `Usage: ${usage}`,
    `Options:\n${columns([...all, ['-h, --help', 'show this']])}`,
    `Examples:\n${examples.map((example) => `  ${example}`).join('\n')}`,
  ])
}

export function helpOfGroup(name: string, { summary, commands }: Group): string {
  const rows = Object.entries(commands).map(([word, { summary }]): [string, string] => [`${name} ${word}`, summary])
  return sections([
    `${summary}.`,
    `Usage: kerp ${name} <command>`,
    `Commands:\n${columns(rows)}`,
    `More about one: kerp ${name} <command> --help`,
  ])
}

export function helpOfAll(summaries: Readonly<Record<string, string>>): string {
  return sections([
    'kerp: the real-time, event-driven backbone of a Korean ERP.',
    'Usage: kerp <command> [options]',
    `Commands:\n${columns(Object.entries(summaries))}`,
    `Options:\n${columns([
      ['-h, --help', 'show this'],
      ['-v, --version', 'show the version'],
    ])}`,
    'More about one: kerp <command> --help',
  ])
}

function flagText(flag: string, { value, short }: Option): string {
  return `${short ? `-${short}, ` : ''}--${flag}${value ? ` <${value}>` : ''}`
}

/** Two columns, the left as wide as its longest word. */
export function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length)) + 2
  return rows.map(([left, right]) => `  ${left.padEnd(width)}${right}`).join('\n')
}

function sections(all: readonly string[]): string {
  return `${all.join('\n\n')}\n`
}
