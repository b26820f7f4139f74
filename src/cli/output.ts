/** Results go to standard output, everything else to standard error: so that a pipe carries only what was asked for. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** For people: a line about what goes on. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** A table with as much room as it needs; the last column is not padded. */
export function printTable(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): void {
  const cells = [head, ...rows.map((row) => row.map((cell) => String(cell ?? '–')))]
  const widths = head.map((_, column) => Math.max(...cells.map((row) => widthOf(row[column] ?? ''))))
  const lines = cells.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat(Math.max(0, widths[column]! - widthOf(cell))))
      .join('  ')
      .trimEnd(),
  )
  print(lines.join('\n'))
}

/** Korean characters take two places on a terminal. */
function widthOf(text: string): number {
  let width = 0
  for (const character of text)
    width += /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]/.test(character) ? 2 : 1
  return width
}

export function ms(value: number | null): string | null {
  if (value === null) return null
  if (value < 1_000) return `${Math.round(value)} ms`
  if (value < 120_000) return `${(value / 1000).toFixed(1)} s`
  return value < 7_200_000 ? `${Math.round(value / 60_000)} min` : `${Math.round(value / 3_600_000)} h`
}

/** `| head` closes the pipe when it has seen enough: that ends us quietly, and is no failure. */
export function endWhenNobodyReads(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0)
      throw error
    })
  }
}
