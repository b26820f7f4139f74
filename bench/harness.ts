/** Side by side: A B A B, medians, and ratios of medians. A shared machine has no absolute numbers. */

export interface Measure {
  perSecond?: number
  p50Ms?: number
  p99Ms?: number
  /** From the commit's return instead of its sending: below zero where the handler is faster than the answer. */
  returnedP50Ms?: number
  rssMb?: number
}

export interface Candidate {
  subject: string
  settings: string
  measure(): Promise<Measure>
}

export interface Row extends Measure {
  subject: string
  settings: string
  /** Slowest and fastest run, in the row's main unit: per second, or p50 in milliseconds. */
  spread?: [number, number]
  runs: number
  error?: string
}

/** Runs every candidate once per round. One that fails is reported and left out of later rounds; the others go on. */
export async function sideBySide(candidates: Candidate[], rounds: number, say: (line: string) => void): Promise<Row[]> {
  const measures = candidates.map((): Measure[] => [])
  const errors: (string | undefined)[] = candidates.map(() => undefined)
  for (let round = 0; round < rounds; round++) {
    for (const [i, candidate] of candidates.entries()) {
      if (errors[i]) continue
      try {
        const measure = await candidate.measure()
        measures[i]!.push(measure)
        say(`${round + 1}/${rounds} ${candidate.subject}: ${brief(measure)}`)
      } catch (error) {
        // Where dropping the database failed as well, what came first is what counts.
        const first: unknown = error instanceof SuppressedError ? error.suppressed : error
        errors[i] = first instanceof Error ? first.message : String(first)
        say(`${round + 1}/${rounds} ${candidate.subject} failed: ${errors[i]}`)
      }
    }
  }
  return candidates.map((candidate, i) => summarize(candidate, measures[i]!, errors[i]))
}

function summarize({ subject, settings }: Candidate, measures: Measure[], error: string | undefined): Row {
  const row: Row = { subject, settings, runs: measures.length }
  if (error) row.error = error.split('\n')[0]!.replace(/^Error: /, '')
  for (const unit of ['perSecond', 'p50Ms', 'p99Ms', 'returnedP50Ms', 'rssMb'] as const) {
    const values = measures.flatMap((measure) => measure[unit] ?? [])
    if (values.length > 0) row[unit] = round(median(values))
  }
  const main = measures.flatMap((measure) => measure.perSecond ?? measure.p50Ms ?? [])
  if (main.length > 0) row.spread = [round(Math.min(...main)), round(Math.max(...main))]
  return row
}

/** `<first> / <second>` of two rows: rates where both have one, else p50s (where less is better). */
export function ratios(pairs: Iterable<[Row, Row]>): Record<string, number> {
  const result: Record<string, number> = {}
  for (const [ours, theirs] of pairs) {
    const [mine, other] = ours.perSecond ? [ours.perSecond, theirs.perSecond] : [ours.p50Ms, theirs.p50Ms]
    if (mine && other) result[`${ours.subject} / ${theirs.subject}`] = Number((mine / other).toPrecision(3))
  }
  return result
}

export function everyPair(ours: Row[], theirs: Row[]): [Row, Row][] {
  return ours.flatMap((mine) => theirs.map((other): [Row, Row] => [mine, other]))
}

export function median(values: number[]): number {
  return percentile(values, 0.5)
}

/** Nearest rank, interpolated between the two middle values for an even median. */
export function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = share * (sorted.length - 1)
  const low = sorted[Math.floor(at)]!
  return low + (sorted[Math.ceil(at)]! - low) * (at - Math.floor(at))
}

/** Whole numbers above a hundred, three digits below: nobody believes more. */
function round(value: number): number {
  return value >= 100 ? Math.round(value) : Number(value.toPrecision(3))
}

function brief({ perSecond, p50Ms, p99Ms, rssMb }: Measure): string {
  return [
    perSecond && `${Math.round(perSecond).toLocaleString('en')}/s`,
    p50Ms && `p50 ${round(p50Ms)} ms`,
    p99Ms && `p99 ${round(p99Ms)} ms`,
    rssMb && `${Math.round(rssMb)} MB`,
  ]
    .filter(Boolean)
    .join(', ')
}

export function table(rows: Row[]): string {
  const number = (value: number | undefined) => value?.toLocaleString('en') ?? ''
  const cells = rows.map((row) => [
    row.subject,
    number(row.perSecond),
    number(row.p50Ms),
    number(row.p99Ms),
    row.spread ? row.spread.map(number).join(' – ') : '',
    number(row.returnedP50Ms),
    number(row.rssMb),
    row.error ? `failed: ${row.error}` : row.settings,
  ])
  const all = [
    ['subject', 'per second', 'p50 ms', 'p99 ms', 'min – max', 'returned p50', 'RSS MB', 'settings'],
    ...cells,
  ]
  const isEmpty = (column: number) => cells.every((line) => line[column] === '')
  const columns = all[0]!.map((_, column) => column).filter((column) => !isEmpty(column))
  const widths = columns.map((column) => Math.max(...all.map((line) => line[column]!.length)))
  const isText = (column: number) => column === 0 || column === 7
  return all
    .map((line) =>
      columns
        .map((column, i) => (isText(column) ? line[column]!.padEnd(widths[i]!) : line[column]!.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
