import type { ErrorCode } from '../../../kernel/errors.ts'
import { KerpError } from '../../../kernel/errors.ts'
import { orOwnServer, ownServerHint } from './binaries.ts'

/** What can be done about a start that failed: look again who else is there, take another port, or tell the user. */
export type StartFailure = 'look-again' | 'remains' | 'port-taken' | KerpError

interface Rule {
  readonly when: RegExp
  readonly code: ErrorCode
  readonly message: string
  readonly hint: string
}

const rules: readonly Rule[] = [
  {
    when: /shared memory segment|shared memory.*(Cannot allocate|No space)|could not map anonymous shared memory/,
    code: 'EMBEDDED_UNAVAILABLE',
    message: 'PostgreSQL got no shared memory from the system',
    hint: `Give the machine or container more memory (or shared memory: docker run --shm-size). ${orOwnServer}`,
  },
  {
    when: /No space left on device|Disk quota exceeded/,
    code: 'DATA_DIR_UNUSABLE',
    message: 'The disk with the data folder is full',
    hint: 'Free some space (100 MB at least) and start again; what was committed is safe.',
  },
  {
    when: /could not look up effective user ID/,
    code: 'EMBEDDED_UNAVAILABLE',
    message: `PostgreSQL needs a user with a name, and uid ${process.geteuid?.()} has none in /etc/passwd`,
    hint: `Run as a user who has an entry there (in a container: --user node). ${orOwnServer}`,
  },
  {
    when: /invalid value for parameter|unrecognized configuration parameter|requires a numeric value|outside the valid range/,
    code: 'CONFIG_INVALID',
    message: 'PostgreSQL does not accept one of its settings',
    hint: 'Correct it where it is set: in the settings of the embedded server, or in postgresql.conf.',
  },
  {
    when: /Read-only file system|Permission denied|wrong ownership|invalid permissions/,
    code: 'DATA_DIR_UNUSABLE',
    message: 'PostgreSQL may not use its data folder',
    hint: 'Give the folder and the files in it back to the user that started it first, or choose another KERP_DATA_DIR.',
  },
  {
    when: /error while loading shared libraries|not found$|cannot execute/m,
    code: 'EMBEDDED_UNAVAILABLE',
    message: 'PostgreSQL cannot be executed',
    hint: `Install the packages again. ${orOwnServer}`,
  },
]

export function explainFailure(log: string, dataDir: string, logFile: string): StartFailure {
  if (/lock file .*(already exists|is empty)/.test(log)) return 'look-again'
  if (/pre-existing shared memory block/.test(log)) return 'remains'
  if (/could not create any TCP\/IP sockets|could not bind .*Address already in use/.test(log)) return 'port-taken'

  const where = `The last lines of ${logFile}:\n${log || '(nothing)'}`
  const known = explainKnown(log, `(${dataDir}). ${where}`)
  if (known !== undefined) return known
  return new KerpError(
    'DATA_DIR_UNUSABLE',
    `PostgreSQL does not start on ${dataDir}; its files may be damaged. ${where}`,
    {
      hint: `Restore the folder from a backup, or move it away to start with an empty database. ${orOwnServer}`,
      details: log,
    },
  )
}

export function explainInitdbFailure(output: string, folder: string): KerpError {
  const lastLines = output.split('\n').slice(-5).join('\n')
  const known = explainKnown(output, `(${folder}):\n${lastLines}`)
  if (known !== undefined) return known
  return new KerpError('EMBEDDED_UNAVAILABLE', `PostgreSQL could not create a database in ${folder}:\n${lastLines}`, {
    hint: ownServerHint,
    details: output,
  })
}

function explainKnown(text: string, where: string): KerpError | undefined {
  const rule = rules.find(({ when }) => when.test(text))
  return rule && new KerpError(rule.code, `${rule.message} ${where}`, { hint: rule.hint, details: text })
}
