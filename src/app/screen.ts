import type { WriteStream } from 'node:tty'

/** A terminal whose last line may be rewritten, while everything else is written above it. */
export interface Screen {
  /** Whole lines, with the line end; to standard error if that is said, which is mostly the same terminal. */
  write(text: string, to?: NodeJS.WritableStream): void
  /** Replaces the last line; an empty one takes it away. */
  live(line: string): void
}

export function createScreen(terminal: WriteStream): Screen {
  let shown = ''
  const erase = () => (shown ? '\r\x1b[2K' : '')
  return {
    write(text, to = terminal) {
      terminal.write(erase())
      to.write(text)
      terminal.write(shown)
    },
    live(line) {
      // One that wrapped could not be taken back.
      const next = line.slice(0, Math.max(0, terminal.columns - 1))
      terminal.write(erase() + next)
      shown = next
    },
  }
}
