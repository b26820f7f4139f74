import { expect, test } from 'vitest'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { SimProcess } from '../process.ts'
import type { Network, StatementFault } from './client.ts'
import { SimClient } from './client.ts'
import { SimServer } from './server.ts'

/** The simulated database must be as strict as the real one, or the simulator proves nothing. */
function open(fault: (statement: string) => StatementFault | undefined = () => undefined) {
  const clock = new VirtualClock()
  const server = new SimServer(clock)
  const network: Network = { clock, delayMs: () => 1, noticeMs: () => 10, fault: (_, statement) => fault(statement) }
  const process = new SimProcess('tester', clock)
  const connect = (by = process) => new SimClient(by, server, network)
  const begin = async () => {
    const client = connect()
    await clock.run(client.query('begin'))
    return client
  }
  const ask = (client: SimClient, text: string, ...values: unknown[]) => clock.run(client.query({ text, values }))
  return { clock, server, process, connect, begin, ask }
}

const emitted = (id: string) => JSON.stringify([{ event_id: id, key: 'k', envelope: JSON.stringify({ eventId: id }) }])
const emit = 'select kerp.emit($1)'

test('ids are handed out before the commit, and rows are seen after it', async () => {
  const { server, begin, ask } = open()
  const [slow, fast] = [await begin(), await begin()]
  await ask(slow, emit, emitted('slow'))
  await ask(fast, emit, emitted('fast'))
  await ask(fast, 'commit')
  const ids = () => [...server.table('outbox').values()].map(({ envelope }) => envelope.eventId)
  expect(ids()).toEqual(['fast'])
  await ask(slow, 'commit')
  const [first, second] = [...server.table('outbox').values()]
  expect(ids()).toEqual(['fast', 'slow'])
  expect(second!.id).toBeLessThan(first!.id)
})

test('whoever inserts the same key waits for the other transaction, and finds the row or takes its place', async () => {
  for (const end of ['commit', 'rollback']) {
    const { clock, begin, ask } = open()
    const [first, second] = [await begin(), await begin()]
    const remember = ['inbox: remember', 'consumer', ['event']] as const
    expect((await ask(first, ...remember)).rows).toEqual(['event'])
    let answered = false
    const waiting = ask(second, ...remember).finally(() => (answered = true))
    await clock.advance(5000)
    expect(answered).toBe(false)
    await ask(first, end)
    expect((await waiting).rows).toEqual(end === 'commit' ? [] : ['event'])
  }
})

test('two that wait for each other are a deadlock, and one is told', async () => {
  const { begin, ask } = open()
  const [first, second] = [await begin(), await begin()]
  await ask(first, 'next step of a key', 'a')
  await ask(second, 'next step of a key', 'b')
  const waiting = ask(first, 'next step of a key', 'b')
  await expect(ask(second, 'next step of a key', 'a')).rejects.toMatchObject({ code: '40P01' })
  await ask(second, 'rollback')
  expect((await waiting).rows).toEqual([1])
})

test('after a failed statement nothing goes until the rollback, and a commit is one', async () => {
  const { server, begin, ask } = open()
  const client = await begin()
  await ask(client, emit, emitted('lost'))
  await expect(ask(client, 'break a rule')).rejects.toMatchObject({ code: '23514' })
  await expect(ask(client, emit, emitted('late'))).rejects.toMatchObject({ code: '25P02' })
  expect((await ask(client, 'commit')).command).toBe('ROLLBACK')
  expect(server.table('outbox').size).toBe(0)
})

test('a savepoint undoes only what came after it', async () => {
  const { server, begin, ask } = open()
  const client = await begin()
  await ask(client, emit, emitted('kept'))
  await ask(client, 'savepoint kerp_1')
  await ask(client, emit, emitted('undone'))
  await expect(ask(client, 'break a rule')).rejects.toThrow()
  await ask(client, 'rollback to savepoint kerp_1; release savepoint kerp_1')
  await ask(client, 'commit')
  expect([...server.table('events').keys()]).toEqual(['kept'])
})

test('a connection that breaks during the commit leaves its outcome unknown, never half', async () => {
  for (const when of ['lost before', 'lost after'] as const) {
    const { server, clock, begin, ask } = open((statement) => (statement === 'commit' ? when : undefined))
    const client = await begin()
    await ask(client, emit, emitted('event'))
    await expect(ask(client, 'commit')).rejects.toThrow('Connection terminated')
    await clock.advance(100)
    expect(server.table('events').size).toBe(when === 'lost before' ? 0 : 1)
    expect(server.locks.count).toBe(0)
    expect(server.openTransactions).toBe(0)
  }
})

test('what a program had sent before it died is still carried out, and nothing more', async () => {
  const { server, clock, process, begin } = open()
  const client = await begin()
  void client.query({ text: emit, values: [emitted('event')] })
  process.kill()
  await clock.advance(100)
  expect(server.openTransactions).toBe(0)
  expect(server.table('events').size).toBe(0)
})

test('the server ends what a frozen program has left open', async () => {
  const { server, clock, begin, ask } = open()
  const client = await begin()
  await ask(client, 'next step of a key', 'a')
  await clock.advance(20_000)
  expect(server.openTransactions).toBe(0)
  await expect(ask(client, 'commit')).rejects.toThrow('not queryable')
})
