/** Numbers that look random and are the same for the same seed. */

/** A generator of numbers from 0 up to, not including, its argument. */
export type Random = (below: number) => number

/** The generator of a seed. */
export function randomFrom(seed: number): Random {
  let state = (seed ^ 0x6d2b79f5) | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let value = Math.imul(state ^ (state >>> 15), 1 | state)
    value ^= value + Math.imul(value ^ (value >>> 7), 61 | value)
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 4294967296) * below)
  }
}

/** A number for a text, to seed with. */
export function seedOf(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  }
  return hash >>> 0
}
