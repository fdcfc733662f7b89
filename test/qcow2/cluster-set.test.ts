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

test('a run has any where one of its clusters is in the set, wherever words and pages begin', () => {
  const set = new ClusterSet()
  for (const cluster of [5, 31, 64, 32_767, 70_000]) set.add(cluster)
  for (const first of [0, 1, 5, 6, 30, 31, 32, 33, 63, 64, 65, 32_700, 32_767, 32_768, 69_990]) {
    for (const count of [1, 2, 25, 31, 32, 33, 64, 100]) {
      const one = Array.from({ length: count }, (_, index) => first + index).some((cluster) =>
        set.has(cluster),
      )
      expect([first, count, set.hasAny(first, count)]).toEqual([first, count, one])
    }
  }
})
