import { expect, test } from 'vitest'
import { listConfig, readConfig } from './config.ts'

test('without anything set, everything has its default', () => {
  expect(readConfig({}, {})).toEqual({
    port: 3000,
    portChosen: false,
    host: '127.0.0.1',
    dataDir: expect.stringMatching(/\.kerp$/),
    databaseUrl: undefined,
    roles: ['api', 'relay', 'worker'],
    pool: 10,
    historyDays: 7,
    logLevel: 'info',
  })
})

test('flags go before the environment, and what is set to nothing is not set', () => {
  const env = { KERP_PORT: '4000', KERP_ROLES: 'worker', DATABASE_URL: ' ', LOG_LEVEL: '' }
  expect(readConfig({ KERP_PORT: '5000' }, env)).toMatchObject({
    port: 5000,
    portChosen: true,
    roles: ['worker'],
    databaseUrl: undefined,
  })
  expect(listConfig({ KERP_PORT: '5000' }, env).map(({ name, from }) => [name, from])).toEqual([
    ['KERP_PORT', 'flag'],
    ['KERP_HOST', 'default'],
    ['KERP_DATA_DIR', 'default'],
    ['DATABASE_URL', 'default'],
    ['KERP_ROLES', 'environment'],
    ['KERP_POOL', 'default'],
    ['KERP_HISTORY_DAYS', 'default'],
    ['LOG_LEVEL', 'default'],
  ])
})

test.each([
  ['KERP_PORT', 'abc'],
  ['KERP_PORT', '0'],
  ['KERP_PORT', '65536'],
  ['KERP_PORT', '3e3'],
  ['KERP_HOST', 'http://x'],
  ['DATABASE_URL', 'localhost:5432/kerp'],
  ['DATABASE_URL', 'mysql://root@localhost/kerp'],
  ['KERP_ROLES', 'api,wroker'],
  ['KERP_ROLES', ','],
  ['KERP_POOL', '1'],
  ['KERP_HISTORY_DAYS', '-1'],
  ['LOG_LEVEL', 'loud'],
])('%s=%s is refused by name', (name, value) => {
  expect(() => readConfig({}, { [name]: value })).toThrow(name)
})

test('all mistakes are told together', () => {
  expect(() => readConfig({}, { KERP_PORT: 'x', KERP_POOL: 'y' })).toThrow(/KERP_PORT[^]*KERP_POOL/)
})

test('secrets are shown nowhere', () => {
  const DATABASE_URL = 'postgres://kerp:geheim@db:5432/kerp?sslpassword=geheim'
  expect(JSON.stringify(listConfig({}, { DATABASE_URL }))).not.toContain('geheim')
  expect(() => readConfig({}, { DATABASE_URL: 'mysql://kerp:geheim@db/kerp' })).toThrow(/^(?![^]*geheim)/)
  expect(() => readConfig({}, { DATABASE_URL: 'kerp:geheim@db/kerp' })).toThrow(/^(?![^]*geheim)/)
})
