import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Capabilities } from '../../engine/transport.ts'
import type { Bench } from './bench.ts'
import { openBench } from './bench.ts'
import * as flow from './flow.ts'
import type { Way } from './helpers.ts'
import * as leases from './leases.ts'
import * as operation from './operation.ts'
import * as publishing from './publishing.ts'
import * as settling from './settling.ts'
import * as sharing from './sharing.ts'
import type { ConformanceSubject, OpenSubject } from './subject.ts'

export type { ConformanceSubject, OpenSubject } from './subject.ts'

interface Point {
  readonly title: string
  readonly test: (bench: Bench) => Promise<void>
  /** Run on the way inside a transaction, too. */
  readonly inside?: true
  /** Whoever declares this cannot skip the point. */
  readonly promisedBy?: (capabilities: Capabilities) => boolean
}

const inside = true

/** What every transport does, whatever its broker. */
const points: Readonly<Record<number, Point>> = {
  1: { title: 'round trip of bytes and headers', test: publishing.roundTrip, inside },
  2: { title: 'traceparent kept', test: publishing.traceparentKept, inside },
  3: { title: 'publish failure is per entry', test: publishing.failurePerEntry },
  4: { title: 'oversize refused locally, its neighbours accepted', test: publishing.oversizeRefused },
  5: { title: 'unroutable surfaces', test: publishing.unroutableSurfaces, promisedBy: (can) => can.refusesUnroutable },
  6: { title: 'publish resolves only after durable accept', test: publishing.durableBeforeResolved },
  7: {
    title: 'dedup within the window',
    test: publishing.dedupWithinWindow,
    promisedBy: (can) => can.dedupWindowMs > 0,
  },
  8: { title: 'independent groups each get all', test: sharing.groupsEachGetAll, inside },
  9: { title: 'competing consumers share', test: sharing.competingShare, inside },
  10: { title: 'late subscriber sees the backlog', test: sharing.lateSubscriberSeesBacklog, inside },
  11: { title: 'ack removes', test: settling.ackRemoves, inside },
  12: { title: 'ack survives a restart', test: settling.ackSurvivesRestart, inside, promisedBy: (can) => can.durable },
  13: { title: 'retry respects its delay', test: settling.retryRespectsDelay, inside },
  14: {
    title: 'attempt increments',
    test: settling.attemptIncrements,
    inside,
    promisedBy: (can) => can.countsAttempts,
  },
  15: {
    title: 'consumer-blame does not',
    test: settling.consumerBlameDoesNot,
    inside,
    promisedBy: (can) => can.countsAttempts,
  },
  16: { title: 'slow handler is not redelivered', test: leases.slowHandlerNotRedelivered, inside },
  17: { title: 'buffered messages keep their lease', test: leases.bufferKeepsLease, promisedBy: (can) => can.lease },
  18: {
    title: 'a lost lease aborts the signal, a stale ack is harmless',
    test: leases.lostLeaseAborts,
    promisedBy: (can) => can.lease,
  },
  19: {
    title: "a crashed consumer's messages come back within the lease",
    test: leases.crashedConsumersMessagesComeBack,
    inside,
  },
  20: { title: 'a throw is a retry', test: settling.throwIsRetry, inside },
  21: { title: 'dead letter carries cause, attempt, origin', test: settling.deadLetterTells, inside },
  22: {
    title: 'a dead letter that cannot be written loses nothing',
    test: settling.unwrittenDeadLetterLosesNothing,
    inside,
  },
  23: { title: 'poison does not starve others', test: settling.poisonDoesNotStarve, inside },
  24: {
    title: 'order within a key, across a retry too',
    test: settling.orderWithinKey,
    inside,
    promisedBy: (can) => can.ordering === 'key',
  },
  25: { title: 'in-flight limit never exceeded', test: flow.inFlightLimit, inside },
  26: { title: 'pause stops intake, in-flight finishes', test: flow.pauseStopsIntake, inside },
  27: { title: 'drain returns the unstarted at once', test: flow.drainReturnsUnstarted, inside },
  28: {
    title: 'broker killed and restarted: both directions resume, nothing acknowledged is lost',
    test: operation.brokerRestart,
    inside,
    promisedBy: (can) => can.durable,
  },
  29: { title: 'depth matches reality', test: operation.depthMatches },
  30: { title: 'ensure is idempotent, drift is reported, never silently changed', test: operation.ensureIsIdempotent },
}

const timeoutMs = 60_000

/** Declares the suite for one transport. Call it at the top of a test file. */
export function transportConformance(subject: ConformanceSubject): void {
  describe(`transport ${subject.name}`, () => {
    let open: OpenSubject
    beforeAll(async () => void (open = await subject.open()), timeoutMs)
    afterAll(() => open?.close(), timeoutMs)

    const skips = subject.skips ?? {}
    it('skips no point that its capabilities promise', () => expectHonestSkips(open.transport.capabilities, skips))
    runPoints(subject, 'leased', skips, () => open)
    if (subject.inside) {
      describe('inside a transaction', () =>
        runPoints(subject, 'inside', { ...skips, ...subject.skipsInside }, () => open))
    }
  })
}

function runPoints(
  subject: ConformanceSubject,
  way: Way,
  skips: Readonly<Record<number, string>>,
  open: () => OpenSubject,
): void {
  for (const [number, point] of Object.entries(points)) {
    if (way === 'inside' && !point.inside) continue
    const reason = skips[Number(number)]
    const title = `${number} · ${point.title}`
    if (reason !== undefined) it.skip(`${title} (skipped: ${reason})`, () => {})
    else it(title, () => withBench(point, open(), way, subject.leaseMs), timeoutMs)
  }
}

async function withBench(point: Point, subject: OpenSubject, way: Way, leaseMs: number): Promise<void> {
  const bench = openBench(subject, way, leaseMs)
  try {
    await point.test(bench)
  } finally {
    await bench.clear()
  }
}

function expectHonestSkips(capabilities: Capabilities, skips: Readonly<Record<number, string>>): void {
  const dishonest = Object.keys(skips).filter((number) => points[Number(number)]?.promisedBy?.(capabilities))
  expect(dishonest, 'points that the declared capabilities promise').toEqual([])
}
