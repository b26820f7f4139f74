import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { KerpError } from '../../kernel/errors.ts'
import { markLost } from '../database/connection.ts'
import type { Delivery, Settlement } from '../transport.ts'
import { GroupFailure, settleGroup } from './group.ts'

/** One message: its name, and the key after the colon if it has one. */
function delivery(name: string): Delivery {
  const key = name.split(':')[1] ?? null
  const envelope = {
    eventId: name,
    eventType: 'it.happened',
    timestamp: '',
    data: {},
    version: 1,
    key,
    companyId: 'one',
  }
  return { envelope, attempt: 1, signal: new AbortController().signal }
}

const nameOf = ({ envelope }: Delivery) => envelope.eventId
const retry: Settlement = { do: 'retry', afterMs: 100, blame: 'message' }

type Attempt = (names: readonly string[], deliveries: readonly Delivery[]) => void

interface Run {
  batch: readonly string[]
  /** Fails a whole attempt, or returns. */
  attempt?: Attempt
  judge?: (name: string, error: Error) => Settlement
  fatal?: (failure: unknown) => boolean
}

async function carryOut({ batch, attempt = () => {}, judge = () => retry, fatal = () => false }: Run) {
  const attempts: string[][] = []
  const settled: [string, string][] = []
  const judged: [string, string][] = []
  const done = settleGroup({
    batch: batch.map(delivery),
    async attempt(part) {
      attempts.push(part.map(nameOf))
      attempt(part.map(nameOf), part)
    },
    judge: (one, error) => (judged.push([nameOf(one), error.message]), judge(nameOf(one), error)),
    settle(one, settlement) {
      settled.push([nameOf(one), settlement.do === 'retry' && settlement.afterMs === 0 ? 'held back' : settlement.do])
    },
    fatal,
  })
  const failure = await done.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  return { attempts, settled, judged, failure, of: (name: string) => settled.find(([each]) => each === name)?.[1] }
}

/** Handlers of these fail whenever they run, and say so. */
const suspecting =
  (...poison: string[]): Attempt =>
  (_, deliveries) => {
    const suspects = deliveries.filter((one) => poison.includes(nameOf(one)))
    if (suspects.length)
      throw new GroupFailure(new Map(suspects.map((one) => [one, new Error(`${nameOf(one)} failed`)])))
  }

/** With one of these in it the commit fails, and nobody knows whose fault it is. */
const anonymously =
  (...poison: string[]): Attempt =>
  (names) => {
    if (names.some((name) => poison.includes(name))) throw new Error('the commit failed')
  }

describe('a batch', () => {
  test('that goes well is one attempt', async () => {
    const { attempts, settled } = await carryOut({ batch: ['a', 'b:k', 'c:k'] })
    expect(attempts).toEqual([['a', 'b:k', 'c:k']])
    expect(settled.map(([, what]) => what)).toEqual(['ack', 'ack', 'ack'])
  })

  test('of none is no trouble', async () => {
    expect(await carryOut({ batch: [] })).toMatchObject({ attempts: [], settled: [], failure: undefined })
  })

  test('with a suspect is carried out without it, and the suspect by itself', async () => {
    const { attempts, settled, judged } = await carryOut({ batch: ['a', 'b', 'c', 'd'], attempt: suspecting('b') })
    expect(attempts).toEqual([['a', 'b', 'c', 'd'], ['a', 'c', 'd'], ['b']])
    expect(Object.fromEntries(settled)).toEqual({ a: 'ack', b: 'retry', c: 'ack', d: 'ack' })
    expect(judged).toEqual([['b', 'b failed']])
  })

  test('a suspect that does well by itself is done', async () => {
    let first = true
    const { of, judged } = await carryOut({
      batch: ['a', 'b'],
      attempt: (names, deliveries) => {
        if (first) suspecting('b')(names, deliveries)
        first = false
      },
    })
    expect([of('a'), of('b'), judged]).toEqual(['ack', 'ack', []])
  })

  test('that fails without a suspect is halved until the one is found', async () => {
    const names = Array.from({ length: 16 }, (_, index) => `m${index}`)
    const { attempts, settled, judged } = await carryOut({ batch: names, attempt: anonymously('m5') })
    expect(settled.filter(([, what]) => what === 'ack')).toHaveLength(15)
    expect(judged).toEqual([['m5', 'the commit failed']])
    expect(attempts.length).toBeLessThanOrEqual(9)
  })

  test('holds back the later ones of a key whose event has to be tried again, in every half', async () => {
    const { of } = await carryOut({ batch: ['a:k', 'b:k', 'c', 'd:k', 'e:j'], attempt: anonymously('a:k') })
    expect(['a:k', 'b:k', 'c', 'd:k', 'e:j'].map(of)).toEqual(['retry', 'held back', 'ack', 'held back', 'ack'])
  })

  test('holds them back behind one that is given up, until its letter is written', async () => {
    const { of } = await carryOut({
      batch: ['a:k', 'b:k'],
      attempt: suspecting('a:k'),
      judge: () => ({ do: 'dead', reason: 'permanent' }),
    })
    expect([of('a:k'), of('b:k')]).toEqual(['dead', 'held back'])
  })

  test('does not try a second time what alone was still running at the deadline', async () => {
    const { attempts, judged } = await carryOut({
      batch: ['a', 'b'],
      attempt: (_, deliveries) => {
        const stuck = deliveries.find((one) => nameOf(one) === 'b')
        if (stuck) throw new GroupFailure(new Map([[stuck, new KerpError('DEADLINE_EXCEEDED', 'too long')]]), true)
      },
    })
    expect(attempts).toEqual([['a', 'b'], ['a']])
    expect(judged).toEqual([['b', 'too long']])
  })

  test('of which the first failure is known already does not try that again', async () => {
    const attempts: string[][] = []
    const batch = ['a', 'b'].map(delivery)
    const failure = new GroupFailure(new Map([[batch[0]!, new Error('known')]]))
    const judge = () => retry
    await settleGroup(
      { batch, attempt: async (part) => void attempts.push(part.map(nameOf)), judge, settle() {} },
      failure,
    )
    expect(attempts).toEqual([['b'], ['a']])
  })
})

describe('nobody is blamed and nothing more is tried', () => {
  test('when the connection is lost', async () => {
    const lost = markLost(new Error('Connection terminated unexpectedly'))
    const run = await carryOut({ batch: ['a', 'b', 'c'], attempt: () => fail(lost) })
    expect(run).toMatchObject({ attempts: [['a', 'b', 'c']], settled: [], judged: [], failure: lost })
  })

  test('when the failure is fatal here; what was done before stays done', async () => {
    const fatal = new Error('fatal')
    const run = await carryOut({
      batch: ['a', 'b', 'c', 'd'],
      attempt: (names) => {
        if (names.length === 4) throw new Error('the commit failed')
        if (names.includes('c')) throw fatal
      },
      fatal: (failure) => failure === fatal,
    })
    expect(run).toMatchObject({
      settled: [
        ['a', 'ack'],
        ['b', 'ack'],
      ],
      judged: [],
      failure: fatal,
    })
  })
})

function fail(error: Error): never {
  throw error
}

describe('whatever is poison in it', () => {
  const cases = fc
    .record({
      keys: fc.array(fc.option(fc.constantFrom('j', 'k', 'l')), { minLength: 1, maxLength: 24 }),
      poison: fc.array(fc.nat(23), { maxLength: 6 }),
      dead: fc.boolean(),
      known: fc.boolean(),
    })
    .map(({ keys, poison, ...rest }) => {
      const batch = keys.map((key, index) => (key ? `m${index}:${key}` : `m${index}`))
      return { batch, poison: batch.filter((_, index) => poison.includes(index)), ...rest }
    })

  const check = (
    predicate: (
      given: { batch: string[]; poison: string[]; dead: boolean },
      run: Awaited<ReturnType<typeof carryOut>>,
    ) => void,
  ) =>
    fc.assert(
      fc.asyncProperty(cases, async (given) => {
        const attempt = given.known ? suspecting(...given.poison) : anonymously(...given.poison)
        const judge = (): Settlement => (given.dead ? { do: 'dead', reason: 'permanent' } : retry)
        predicate(given, await carryOut({ batch: given.batch, attempt, judge }))
      }),
      { numRuns: 500 },
    )

  const keyOf = (name: string) => name.split(':')[1]

  test('each message is settled exactly once, and only poison is judged', () =>
    check(({ batch, poison }, { settled, judged, failure }) => {
      expect(failure).toBeUndefined()
      expect(settled.map(([name]) => name).sort()).toEqual(batch.toSorted())
      expect(poison).toEqual(expect.arrayContaining(judged.map(([name]) => name)))
    }))

  test('everything that is neither poison nor behind poison of its key is done', () =>
    check(({ batch, poison, dead }, { of }) => {
      batch.forEach((name, index) => {
        const behind = batch
          .slice(0, index)
          .some((other) => keyOf(name) && keyOf(other) === keyOf(name) && poison.includes(other))
        expect(of(name)).toBe(behind ? 'held back' : poison.includes(name) ? (dead ? 'dead' : 'retry') : 'ack')
      })
    }))

  test('what is done of a key is done in its order', () =>
    check(({ batch }, { settled }) => {
      for (const key of ['j', 'k', 'l']) {
        const done = settled.filter(([name, what]) => keyOf(name) === key && what === 'ack').map(([name]) => name)
        expect(done).toEqual(batch.filter((name) => done.includes(name)))
      }
    }))
})
