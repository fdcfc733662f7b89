/** Seeded content for images: the same bytes for the same seed, for ever. */

const FRAGMENT_COUNT = 24

/** Bytes that deflate shrinks to about a tenth, but in which no two stretches are alike. */
export function pattern(seed: number, length: number): Buffer {
  const next = randomWords(seed)
  const fragments = Array.from({ length: FRAGMENT_COUNT }, () =>
    Buffer.from(Array.from({ length: 20 + (next() % 60) }, () => 32 + (next() % 90))),
  )
  const target = Buffer.alloc(length)
  for (let at = 0; at < length; ) {
    const fragment = fragments[next() % FRAGMENT_COUNT]!
    fragment.copy(target, at)
    at += fragment.length
  }
  return target
}

/** Bytes that nothing shrinks. */
export function noise(seed: number, length: number): Buffer {
  const next = randomWords(seed)
  return Buffer.from(Array.from({ length }, () => next() & 0xff))
}

/** Xorshift: 32-bit words from a seed. */
function randomWords(seed: number): () => number {
  let state = (seed * 0x9e3779b1 + 0x7f4a7c15) >>> 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state
  }
}
