import { resolve } from 'node:path'
import { z } from 'zod'
import { KerpError } from '../kernel/errors.ts'

export const roles = ['api', 'relay', 'worker'] as const
export type Role = (typeof roles)[number]

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

export interface Config {
  readonly port: number
  /** Somebody chose it: then even a process without the role `api` tells there how it is. */
  readonly portChosen: boolean
  readonly host: string
  readonly dataDir: string
  /** Undefined: the embedded PostgreSQL in the data folder. */
  readonly databaseUrl: string | undefined
  readonly roles: readonly Role[]
  readonly pool: number
  readonly historyDays: number
  readonly logLevel: (typeof logLevels)[number]
}

interface Setting<Value> {
  readonly describe: string
  /** As it would be written in the environment; empty: none. */
  readonly initial: string
  readonly schema: z.ZodType<Value, string>
  readonly secret?: boolean
}

const setting = <Value>(settings: Setting<Value>) => settings

const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, { error: 'must be a whole number' })
    .transform(Number)
    .refine((value) => value >= min && value <= max, { error: `must be from ${min} to ${max}` })

const roleList = z.string().transform((text, check) => {
  const names = text.split(',').map((name) => name.trim())
  const unknown = names.filter((name) => !roles.includes(name as Role))
  if (unknown.length === 0) return [...new Set(names as Role[])]
  check.addIssue({
    code: 'custom',
    message: `'${unknown[0]}' is no role: choose from ${roles.join(', ')}, with commas between`,
  })
  return z.NEVER
})

const postgresUrl = z
  .string()
  .refine(isPostgresUrl, { error: 'must look like postgres://user:password@host:5432/database' })

/** Every setting there is. Flags have the last word, then the environment, then what stands here. */
export const settings = {
  KERP_PORT: setting({ describe: 'port of the HTTP API', initial: '3000', schema: wholeNumber(1, 65535) }),
  KERP_HOST: setting({
    describe: 'address to listen on; 0.0.0.0 lets other machines in, as containers need it',
    initial: '127.0.0.1',
    schema: z.string().regex(/^[\w.:-]+$/, { error: 'must be a host name or an IP address' }),
  }),
  KERP_DATA_DIR: setting({
    describe: 'folder of the embedded PostgreSQL',
    initial: './.kerp',
    schema: z.string().transform((path) => resolve(path)),
  }),
  DATABASE_URL: setting({
    describe: 'a PostgreSQL of your own (15 or newer) in place of the embedded one',
    initial: '',
    schema: postgresUrl,
    secret: true,
  }),
  KERP_ROLES: setting({
    describe: 'what this process does: api, relay, worker',
    initial: 'api,relay,worker',
    schema: roleList,
  }),
  KERP_POOL: setting({ describe: 'database connections at most', initial: '10', schema: wholeNumber(2, 1000) }),
  KERP_HISTORY_DAYS: setting({
    describe: 'days for which events can be looked up after they were done',
    initial: '7',
    schema: wholeNumber(1, 3650),
  }),
  LOG_LEVEL: setting({
    describe: `how much is logged: ${logLevels.join(', ')}`,
    initial: 'info',
    schema: z.enum(logLevels),
  }),
} as const

export type SettingName = keyof typeof settings
export type Overrides = Partial<Record<SettingName, string>>

export interface ConfigLine {
  readonly name: SettingName
  /** As written, secrets masked; null: not set. */
  readonly value: string | null
  readonly from: 'flag' | 'environment' | 'default'
  readonly describe: string
}

/** Reads and checks everything at once, so that all mistakes are told together. */
export function readConfig(flags: Overrides = {}, env: NodeJS.ProcessEnv = process.env): Config {
  const wrong: { name: string; message: string }[] = []
  const found = new Map<SettingName, unknown>()
  for (const name of Object.keys(settings) as SettingName[]) {
    const { text } = lookUp(name, flags, env)
    if (text === '') continue
    const result = settings[name].schema.safeParse(text)
    if (result.success) found.set(name, result.data)
    else wrong.push({ name, message: `${name} is ${quote(name, text)}: ${result.error.issues[0]!.message}` })
  }
  if (wrong.length) {
    throw new KerpError('CONFIG_INVALID', wrong.map(({ message }) => message).join('\n'), {
      hint: 'see all settings and where each comes from: kerp config',
      details: wrong,
    })
  }
  const value = <T>(name: SettingName) => found.get(name) as T
  return {
    port: value('KERP_PORT'),
    portChosen: lookUp('KERP_PORT', flags, env).from !== 'default',
    host: value('KERP_HOST'),
    dataDir: value('KERP_DATA_DIR'),
    databaseUrl: value('DATABASE_URL'),
    roles: value('KERP_ROLES'),
    pool: value('KERP_POOL'),
    historyDays: value('KERP_HISTORY_DAYS'),
    logLevel: value('LOG_LEVEL'),
  }
}

export function listConfig(flags: Overrides = {}, env: NodeJS.ProcessEnv = process.env): ConfigLine[] {
  return (Object.keys(settings) as SettingName[]).map((name) => {
    const { text, from } = lookUp(name, flags, env)
    return { name, value: text === '' ? null : mask(name, text), from, describe: settings[name].describe }
  })
}

/** Whether errors are shown with their stack; asked for even when the settings are wrong. */
export function wantsStacks(env: NodeJS.ProcessEnv = process.env): boolean {
  return env['LOG_LEVEL'] === 'debug' || env['LOG_LEVEL'] === 'trace'
}

/** A variable that is set to nothing, as compose files like to do, counts as not set. */
function lookUp(
  name: SettingName,
  flags: Overrides,
  env: NodeJS.ProcessEnv,
): { text: string; from: ConfigLine['from'] } {
  if (flags[name] !== undefined) return { text: flags[name].trim(), from: 'flag' }
  const text = env[name]?.trim()
  return text ? { text, from: 'environment' } : { text: settings[name].initial, from: 'default' }
}

function quote(name: SettingName, text: string): string {
  const masked = mask(name, text)
  return masked === '***' ? 'not usable' : `'${masked}'`
}

function mask(name: SettingName, text: string): string {
  if (!('secret' in settings[name])) return text
  // What cannot be told apart may be a password, all of it.
  if (!isPostgresUrl(text)) return '***'
  const url = new URL(text)
  if (url.password) url.password = '***'
  for (const key of url.searchParams.keys()) if (/password|secret|key/i.test(key)) url.searchParams.set(key, '***')
  return url.toString()
}

function isPostgresUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  return ['postgres:', 'postgresql:'].includes(new URL(text).protocol)
}
