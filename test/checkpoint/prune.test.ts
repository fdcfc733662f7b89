/** Pruning: what the rules keep, and in which order the rest is merged. */

import { describe, expect, test } from 'vitest'
import { createCheckpoint, pruneCheckpoints } from '../../src/checkpoint/index.ts'
import { keptBy } from '../../src/checkpoint/keep-rules.ts'
import { CheckpointModel } from '../support/checkpoint-model.ts'

function at(text: string): { id: string; time: number } {
  return { id: text, time: new Date(text).getTime() }
}

const DATES = [
  '2026-03-30T09:00',
  '2026-03-31T09:00',
  '2026-03-31T21:00',
  '2026-04-01T09:00',
  '2026-04-01T10:00',
  '2026-04-05T23:59',
  '2026-04-06T00:01',
].map(at)

describe('rules', () => {
  const kept = (rules: Parameters<typeof keptBy>[1]) => [...keptBy(DATES, rules).keys()].sort()

  test('the last ones', () => {
    expect(kept({ last: 2 })).toEqual(['2026-04-05T23:59', '2026-04-06T00:01'])
  })

  test('the newest of each day that has one', () => {
    expect(kept({ daily: 3 })).toEqual(['2026-04-01T10:00', '2026-04-05T23:59', '2026-04-06T00:01'])
  })

  test('a week begins on Monday', () => {
    expect(kept({ weekly: 2 })).toEqual(['2026-04-05T23:59', '2026-04-06T00:01'])
  })

  test('the newest of each month', () => {
    expect(kept({ monthly: 5 })).toEqual(['2026-03-31T21:00', '2026-04-06T00:01'])
  })

  test('what several rules keep stays once, and says why', () => {
    expect(keptBy(DATES, { last: 1, daily: 1, monthly: 1 }).get('2026-04-06T00:01')).toEqual([
      'last',
      'daily',
      'monthly',
    ])
  })

  test('no rule, and numbers that are none, are refused', () => {
    expect(() => keptBy(DATES, {})).toThrow('at least one rule')
    expect(() => keptBy(DATES, { last: -1 })).toThrow('not negative')
    expect(() => keptBy(DATES, { last: 1.5 })).toThrow('whole number')
    expect(kept({ last: 0 })).toEqual([])
  })
})

/** Eight external checkpoints, each of which wrote so many clusters. */
async function line(clusterCounts: readonly number[]): Promise<CheckpointModel> {
  const model = await CheckpointModel.create([{ size: 256 * 1024, clusterSize: 4096 }])
  for (const [index, count] of clusterCounts.entries()) {
    const offset = ((index * 5) % 32) * 4096
    await model.write(0, offset, new Uint8Array(count * 4096).fill(index + 1))
    const name = `c${index}`
    const date = new Date(2026, 0, 1 + index)
    await createCheckpoint(await model.catalogue(), { name, kind: 'external', date })
    model.noteCheckpoint(name)
  }
  return model
}

describe('pruning', () => {
  test('removes what no rule keeps, every other view unchanged', async () => {
    const model = await line([3, 1, 4, 1, 5, 9, 2, 6])
    const catalogue = await model.catalogue()
    const dry = await pruneCheckpoints(catalogue, {
      keep: { last: 2 },
      except: ['c1'],
      dryRun: true,
    })
    expect([dry.isDone, dry.removed.length]).toEqual([false, 5])
    await model.checkViews('after a dry run')
    const { removed, kept, isDone } = await pruneCheckpoints(catalogue, {
      keep: { last: 2 },
      except: ['c1'],
      purge: true,
    })
    expect(isDone).toBe(true)
    expect(kept.map(({ name }) => name)).toEqual(['c7', 'c6', 'c1'])
    const names = removed.map(({ checkpoint }) => checkpoint?.name ?? '')
    expect([...names].sort()).toEqual(['c0', 'c2', 'c3', 'c4', 'c5'])
    for (const name of names) model.checkpoints.delete(name)
    await model.checkViews('pruned')
    await model.checkFiles('pruned')
  })

  test('goes on with what moves the fewest bytes, and so moves less than in the order of time', async () => {
    const counts = [16, 1, 1, 1, 16, 1, 1, 1]
    const cheapest = await line(counts)
    const { removed } = await pruneCheckpoints(await cheapest.catalogue(), { keep: { last: 1 } })
    const moved = removed.map(({ bytesWritten }) => bytesWritten)
    const oldest = await line(counts)
    let inTime = 0
    for (let index = 0; index < 7; index++) {
      const keep = { last: 7 - index }
      const { removed: one } = await pruneCheckpoints(await oldest.catalogue(), { keep })
      inTime += one.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0)
    }
    expect(moved[0]).toBe(Math.min(...moved))
    expect(moved.reduce((sum, length) => sum + length, 0)).toBeLessThanOrEqual(inTime)
    for (const model of [cheapest, oldest]) {
      for (let index = 0; index < 7; index++) model.checkpoints.delete(`c${index}`)
      await model.checkViews('pruned')
      await model.checkFiles('pruned')
    }
  })

  test('a second time there is nothing to do', async () => {
    const model = await line([1, 2, 3])
    await pruneCheckpoints(await model.catalogue(), { keep: { last: 1 } })
    const again = await pruneCheckpoints(await model.catalogue(), { keep: { last: 1 } })
    expect([again.isDone, again.removed, again.kept.map(({ name }) => name)]).toEqual([
      false,
      [],
      ['c2'],
    ])
  })
})
