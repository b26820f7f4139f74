/** Knows which methods a path is served with, to tell "no such address" from "not with that method". */
export function createPathBook() {
  const book: { pattern: RegExp; methods: Set<string> }[] = []
  const byPath = new Map<string, Set<string>>()

  return {
    add(path: string, methods: readonly string[]): void {
      let known = byPath.get(path)
      if (!known) {
        known = new Set()
        byPath.set(path, known)
        book.push({ pattern: toPattern(path), methods: known })
      }
      for (const method of methods) known.add(method)
    },
    methodsOf(path: string): string[] {
      return [
        ...new Set(book.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => [...methods])),
      ].sort()
    },
  }
}

function toPattern(path: string): RegExp {
  const parts = path.split('/').map((part) => (part.startsWith(':') ? '[^/]+' : part.replaceAll('.', '\\.')))
  return new RegExp(`^${parts.join('/')}$`)
}
