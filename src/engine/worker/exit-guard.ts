import { AsyncLocalStorage } from 'node:async_hooks'
import { KerpError } from '../../kernel/errors.ts'

const insideHandler = new AsyncLocalStorage<true>()
let installed = false

/**
 * Turns a `process.exit()` called by handler code, often deep in some library, into an error of that handler: the process and its
 * neighbours live on. The app installs it; a library does not change its host's `process` by itself.
 */
export function guardAgainstExit(): void {
  if (installed) return
  installed = true
  const exit = process.exit.bind(process)
  process.exit = ((code?: number) => {
    if (!insideHandler.getStore()) return exit(code)
    throw new KerpError('HANDLER_EXITED', `a handler called process.exit(${code ?? ''})`, {
      hint: 'throw permanent(…) to give up on an event',
    })
  }) as typeof process.exit
}

export function asHandler<T>(work: () => T): T {
  return installed ? insideHandler.run(true, work) : work()
}
