/** Counts per cluster: narrow and wide pages, and the maximum at which they stop. */

import { describe, expect, it } from 'vitest'
import { ClusterCounts, PAGE_CLUSTERS } from '../../src/qcow2/cluster-counts.ts'

describe('counts per cluster', () => {
  it.each([1, 3, 0xffff, 0xffffffff, Number.MAX_SAFE_INTEGER])('stop at %d', (maximum) => {
    const counts = new ClusterCounts(10, maximum)
    expect(counts.add(3, maximum - 1)).toBe(0)
    expect(counts.add(3, 1)).toBe(0)
    expect(counts.get(3)).toBe(maximum)
    expect(counts.add(3, 1)).toBe(1)
    expect(counts.get(3)).toBe(maximum)
  })

  it('take pages only where something was counted', () => {
    const counts = new ClusterCounts(2 ** 31, 0xffff)
    const far = 2 ** 31 - 1
    counts.add(far, 2)
    expect(counts.get(far)).toBe(2)
    expect(counts.get(far - 1)).toBe(0)
    expect(counts.get(0)).toBe(0)
    expect(counts.existingPage(0)).toBeUndefined()
    expect(counts.existingPage(Math.floor(far / PAGE_CLUSTERS))).toBeDefined()
    expect(counts.highest()).toBe(far)
  })

  it.each([
    [0xffff, 2],
    [Number.MAX_SAFE_INTEGER, 8],
  ])('up to %d take a byte each until one is too high for it, then %d', (maximum, width) => {
    const counts = new ClusterCounts(10, maximum)
    counts.set(5, 255)
    counts.set(PAGE_CLUSTERS, 1)
    expect(counts.existingPage(0)?.BYTES_PER_ELEMENT).toBe(1)
    const before = counts.copy()
    counts.add(5, 1)
    counts.set(6, 300)
    expect([counts.get(4), counts.get(5), counts.get(6)]).toEqual([0, 256, 300])
    expect(counts.copy().get(6)).toBe(300)
    expect(counts.existingPage(0)?.BYTES_PER_ELEMENT).toBe(width)
    expect(counts.existingPage(1)?.BYTES_PER_ELEMENT).toBe(1)
    expect(before.get(5)).toBe(255)
  })

  it('know their highest cluster, also where pages were emptied', () => {
    const counts = new ClusterCounts(10, 0xffff)
    expect(counts.highest()).toBe(-1)
    counts.set(PAGE_CLUSTERS + 5, 1)
    counts.set(7, 1)
    counts.set(PAGE_CLUSTERS + 5, 0)
    expect(counts.highest()).toBe(7)
  })

  it('reach as far as something was found', () => {
    const counts = new ClusterCounts(10, 1)
    counts.reach(9)
    expect(counts.clusterCount).toBe(10)
    counts.reach(10)
    expect(counts.clusterCount).toBe(11)
  })
})
