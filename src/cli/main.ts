#!/usr/bin/env node
// Nothing is imported up here: on a Node.js that is too old, the first import could fail before this could say why.
const [major = '0'] = process.versions.node.split('.')
if (Number(major) < 24) {
  process.stderr.write(
    `kerp needs Node.js 24 or newer; this is ${process.versions.node}. Get it from https://nodejs.org\n`,
  )
  process.exit(1)
}
const { runCli } = await import('./run.ts')
const code = await runCli(process.argv.slice(2))
// What is still open (a connection that does not close, say) must not keep a finished command alive.
process.stdout.write('', () => process.exit(code))

export {}
