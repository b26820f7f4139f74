import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** Makes dist/ for publishing: JavaScript and types by the compiler, and the SQL files beside them. */

const root = join(import.meta.dirname, '..')
const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: root, stdio: 'inherit' })

rmSync(join(root, 'dist'), { recursive: true, force: true })
run('tsc', '-p', 'tsconfig.build.json')
for (const name of readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })) {
  if (name.endsWith('.sql')) cpSync(join(root, 'src', name), join(root, 'dist', name))
}
chmodSync(join(root, 'dist/cli/main.js'), 0o755)
