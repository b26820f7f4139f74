/** `; did you mean 'start'?` when one of the words is near enough, else nothing. */
export function nearest(word: string, words: readonly string[]): string {
  const scored = words.map((each) => ({ each, far: distance(word.toLowerCase(), each) })).sort((a, b) => a.far - b.far)
  const [best] = scored
  const near = best && (best.far <= Math.max(1, Math.floor(best.each.length / 2)) || best.each.startsWith(word))
  return near ? `; did you mean '${best.each}'?` : ''
}

/** How many letters have to be changed, put in or left out. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + same))
    }
    row = next
  }
  return row[b.length]!
}
