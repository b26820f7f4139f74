import { systemClock } from '../../src/kernel/clock.ts'
import { waitFor } from '../../src/testing/wait.ts'
import type { Process } from './processes.ts'
import { endAll, freePort, startKerp } from './processes.ts'

export type Role = 'api' | 'relay' | 'worker'

/** One place in the fleet: the process that runs there now, and those that were killed there. */
interface Post {
  readonly role: Role
  process: Process
  killed: number
}

/** A company's processes on one database, as an operator would run them. */
export interface Fleet extends AsyncDisposable {
  readonly address: string
  /** Kills the next of these roles, in turn, and starts it again at once. */
  killNext(): Promise<void>
  readonly kills: number
  /** Of the clock that only grows. */
  readonly lastKillMs: number
  /** Those that ended although nobody had killed them, with their last words. */
  losses(): string[]
}

export async function startFleet(url: string, roles: readonly Role[], victims: readonly Role[]): Promise<Fleet> {
  const port = await freePort()
  const losses: string[] = []
  let kills = 0
  let lastKillMs = 0

  function start(role: Role): Process {
    const env = { DATABASE_URL: url, KERP_POOL: '6', LOG_LEVEL: 'warn' }
    return startKerp(['--role', role, ...(role === 'api' ? ['--port', String(port)] : [])], env)
  }

  function watch(post: Post): void {
    const { process: watched } = post
    void watched.ended.then(({ code, signal }) => {
      // Ours is no longer at its post when it ends.
      if (post.process !== watched) return
      losses.push(`${post.role} ended (code ${code}, signal ${signal}): ${watched.output().slice(-2000)}`)
    })
  }

  const posts = roles.map((role): Post => ({ role, process: start(role), killed: 0 }))
  posts.forEach(watch)
  await Promise.all(posts.map((post) => post.process.says(/kerp is ready/)))
  const address = `http://127.0.0.1:${port}`
  await waitFor(async () => (await fetch(`${address}/readyz`)).ok, { what: 'the API is ready' })

  return {
    address,
    get kills() {
      return kills
    },
    get lastKillMs() {
      return lastKillMs
    },
    async killNext() {
      const kind = victims[kills % victims.length]!
      const [post] = posts.filter(({ role }) => role === kind).sort((a, b) => a.killed - b.killed)
      if (!post) throw new Error(`there is no ${kind} to kill`)
      const before = post.process
      post.process = start(post.role)
      post.killed++
      kills++
      watch(post)
      lastKillMs = systemClock.monotonic()
      await before.kill('SIGKILL')
    },
    losses: () => losses,
    async [Symbol.asyncDispose]() {
      await endAll()
    },
  }
}
