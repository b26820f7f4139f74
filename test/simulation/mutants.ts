/** A mistake somebody could make in the engine: what is written instead of what, in which file. */
export interface Mutant {
  readonly name: string
  readonly file: string
  readonly edits: readonly { readonly from: string; readonly to: string }[]
}

/** Each of them must be found out. */
export const mutants: readonly Mutant[] = [
  {
    name: 'acknowledges before the commit',
    file: 'engine/worker/handle.ts',
    edits: [
      {
        from: 'const fresh = await database.transaction(',
        to: 'const fresh = part\n    const late = database.transaction(',
      },
      {
        from: 'done(fresh, part.length - fresh.length, startedAt)',
        to: 'late.catch(() => {})\n    done(fresh, 0, startedAt)',
      },
    ],
  },
  {
    name: 'reads the outbox on by id and never sweeps',
    file: 'engine/outbox/relay.ts',
    edits: [{ from: 'const sweeps = now - sweptAt >= sweepMs || nextTry <= now', to: 'const sweeps = nextTry <= now' }],
  },
  {
    name: 'writes the inbox outside the transaction of the effect',
    file: 'engine/worker/handle.ts',
    edits: [
      {
        from: `await inbox.remember(
          tx,
          part.map(({ envelope }) => envelope.eventId),
        )`,
        to: 'await database.transaction((apart) => inbox.remember(apart, part.map(({ envelope }) => envelope.eventId)))',
      },
    ],
  },
  {
    name: 'lets a lost lease settle',
    file: 'transports/memory/queue.ts',
    edits: [
      {
        from: 'this.#leases.delete(token)\n      lease.entry.failures++',
        to: 'lease.until = Infinity\n      lease.entry.failures++',
      },
    ],
  },
  {
    name: 'does not hold back what follows a retry',
    file: 'engine/worker/group.ts',
    edits: [{ from: 'return key !== null && heldBack.has(key)', to: 'return false' }],
  },
  {
    name: 'hands out what follows a message that waits for its retry',
    file: 'transports/memory/queue.ts',
    edits: [
      {
        from: "if (countsAttempt) entry.failures++\n    entry.state = 'delayed'",
        to: "if (countsAttempt) entry.failures++\n    entry.state = 'delayed'\n    entry.lane.entries.push(...entry.lane.entries.splice(entry.lane.entries.indexOf(entry), 1))",
      },
    ],
  },
  {
    name: 'publishes several events of a key at once to a broker that may take only some',
    file: 'engine/outbox/relay.ts',
    edits: [{ from: '|| !keys.has(key)', to: '|| true' }],
  },
  {
    name: 'deletes from the outbox before the broker has confirmed',
    file: 'engine/outbox/relay.ts',
    edits: [
      {
        from: 'const results = await transport.publish(',
        to: 'await outbox.confirm(shard, wave, startedAt)\n        const results = await transport.publish(',
      },
    ],
  },
  {
    name: 'takes a refused event for a published one',
    file: 'engine/outbox/relay.ts',
    edits: [
      {
        from: "if (result.ok || isKerpError(result.error, 'EVENT_UNROUTABLE'))",
        to: 'if (result.ok || result.retryable)',
      },
    ],
  },
  {
    name: 'does not keep the answer of an outside call',
    file: 'engine/worker/perform.ts',
    edits: [{ from: 'await results.keep(event.eventId, answer).catch(', to: 'await Promise.resolve().catch(' }],
  },
  {
    name: 'does not look for a kept answer',
    file: 'engine/worker/perform.ts',
    edits: [
      {
        from: 'kept.has(eventId) ? kept.get(eventId) : await callAndKeep(event, delivery)',
        to: 'await callAndKeep(event, delivery)',
      },
    ],
  },
  {
    name: 'commits with something else than the answer',
    file: 'engine/worker/perform.ts',
    edits: [{ from: 'answers.set(delivery, fromKept(answer))', to: 'answers.set(delivery, kept)' }],
  },
  {
    name: 'runs a second copy within one batch',
    file: 'engine/worker/handle.ts',
    edits: [{ from: 'isNew.delete(envelope.eventId)', to: 'isNew.has(envelope.eventId)' }],
  },
  {
    name: 'acknowledges what is dead though its letter could not be written',
    file: 'transports/memory/consumer.ts',
    edits: [
      {
        from: "return settle(verdict, { do: 'delay', ms: unburiedRetryMs, countsAttempt: false })",
        to: "return settle(verdict, { do: 'remove' })",
      },
    ],
  },
  {
    name: 'tries once more than allowed',
    file: 'engine/worker/retry.ts',
    edits: [{ from: 'if (attempt >= attempts)', to: 'if (attempt > attempts)' }],
  },
  {
    name: 'blames a message for a database that is away',
    file: 'engine/worker/perform.ts',
    edits: [
      {
        from: "return batch.map(() => ({ do: 'retry', afterMs: databaseAwayMs, blame: 'consumer', error }))",
        to: 'throw error',
      },
    ],
  },
  {
    name: 'runs the events of a key side by side',
    file: 'engine/worker/apply.ts',
    edits: [{ from: 'if (lane !== null) lanes.set(lane, outcome)', to: '' }],
  },
]
