import type { Clock } from './clock.ts'
import { systemClock } from './clock.ts'

/** Fills the bytes with random ones; the simulator brings a seeded source. */
export type RandomSource = (bytes: Uint8Array) => void

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/**
 * UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 bits that count within one millisecond, 62 random bits. Ids of one process
 * only ever grow, even when the clock steps back: then the last millisecond goes on being used.
 */
export function createIds(clock: Clock, random: RandomSource): () => string {
  const pool = new Uint8Array(8 * 256)
  let used = pool.length
  let lastMs = 0
  let count = 0

  return () => {
    const now = clock.now()
    if (now > lastMs) {
      lastMs = now
      count = 0
    } else if (++count === 4096) {
      lastMs++
      count = 0
    }
    if (used === pool.length) {
      random(pool)
      used = 0
    }
    const at = used
    used += 8
    const high = Math.floor(lastMs / 0x10000)
    const low = lastMs % 0x10000
    return (
      h(high >>> 24) +
      h(high >>> 16) +
      h(high >>> 8) +
      h(high) +
      '-' +
      h(low >>> 8) +
      h(low) +
      '-' +
      h(0x70 | (count >>> 8)) +
      h(count) +
      '-' +
      h(0x80 | (pool[at]! & 0x3f)) +
      h(pool[at + 1]!) +
      '-' +
      h(pool[at + 2]!) +
      h(pool[at + 3]!) +
      h(pool[at + 4]!) +
      h(pool[at + 5]!) +
      h(pool[at + 6]!) +
      h(pool[at + 7]!)
    )
  }
}

function h(byte: number): string {
  return hex[byte & 0xff]!
}

export const newId: () => string = createIds(systemClock, (bytes) => void crypto.getRandomValues(bytes))

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isUuid(text: string): boolean {
  return uuid.test(text)
}

/** The moment a UUIDv7 was made, in milliseconds since 1970. */
export function timeOfId(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
}
