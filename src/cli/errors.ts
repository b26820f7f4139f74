import { isKerpError, messageOf } from '../kernel/errors.ts'
import { say } from './output.ts'

/** What went wrong, what to do about it, and a code to look it up by; where it happened only for who debugs. */
export async function tellError(error: unknown): Promise<void> {
  const told = mostTelling(error)
  say(`kerp: ${messageOf(told)}`)
  if (isKerpError(told)) {
    if (told.hint) say(`  → ${told.hint}`)
    say(`  (${told.code})`)
  }
  const { wantsStacks } = await import('../app/config.ts')
  if (wantsStacks() && error instanceof Error) say(withCauses(error))
  else if (!isKerpError(told)) say('  (LOG_LEVEL=debug shows where it happened)')
}

/** When cleaning up failed too, the first failure is what matters. */
function mostTelling(error: unknown): unknown {
  return error instanceof SuppressedError ? mostTelling(error.suppressed) : error
}

function withCauses(error: Error): string {
  const stack = error.stack ?? error.message
  return error.cause instanceof Error ? `${stack}\ncaused by: ${withCauses(error.cause)}` : stack
}
