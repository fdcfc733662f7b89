import { expect, test } from 'vitest'
import { ClusterSet } from '../../src/qcow2/metadata/cluster-set.ts'

test('the first cluster outside is the next one that was not added', () => {
  const set = new ClusterSet()
  // Within a word, over words, over a page of 32768.
  for (const [first, count] of [
    [3, 5],
    [30, 70],
    [200, 1],
    [32000, 40_000],
  ] as const) {
    set.add(first, count)
  }
  const slow = (from: number): number => {
    let next = from
    while (set.has(next)) next++
    return next
  }
  for (const from of [0, 3, 7, 8, 29, 30, 31, 32, 64, 99, 100, 200, 31_999, 32_000, 32_767]) {
    expect(set.firstOutside(from)).toBe(slow(from))
  }
  for (let from = 32_760; from < 72_100; from += 13) {
    expect(set.firstOutside(from)).toBe(slow(from))
  }
})
