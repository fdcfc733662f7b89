/** How pairs are measured: turns, medians, and results that are wrong. */

import { expect, test } from 'vitest'
import { marginalCosts } from '../../bench/growth.ts'
import { type Comparison, type Contender, median, quantile, runPairs } from '../../bench/pairs.ts'

function comparison(ours: Partial<Contender>, theirs: Partial<Contender>): Comparison {
  return {
    job: 'job',
    conditions: '',
    unit: 'ms',
    ours: { command: 'ours', run: () => 1, ...ours },
    theirs: { command: 'theirs', run: () => 1, ...theirs },
  }
}

test('a median is the middle value, or the mean of the two middle ones', () => {
  expect(median([5, 1, 3])).toBe(3)
  expect(median([4, 1, 2, 3])).toBe(2.5)
  expect(quantile([0, 10], 0.25)).toBe(2.5)
})

test('the contenders take turns in being first, and the first round is not counted', async () => {
  const order: string[] = []
  let value = 100
  const outcome = await runPairs(
    comparison(
      {
        run: () => {
          order.push('ours')
          return value
        },
      },
      {
        run: () => {
          order.push('theirs')
          value = 10
          return 20
        },
      },
    ),
    2,
  )
  expect(order).toEqual(['ours', 'theirs', 'theirs', 'ours', 'ours', 'theirs'])
  expect(outcome.ours.values).toEqual([10, 10])
  expect(outcome).toMatchObject({ ratio: 0.5, difference: -10 })
})

test('the ratio is the median of the ratios of pairs, not the ratio of the medians', async () => {
  const ours = [0, 10, 40, 30]
  const theirs = [1, 100, 50, 20]
  const { ratio } = await runPairs(
    comparison({ run: () => ours.shift() ?? 0 }, { run: () => theirs.shift() ?? 0 }),
    3,
  )
  expect(ratio).toBe(0.8)
})

test('every run is prepared before and verified after, and a wrong result fails the bench', async () => {
  const calls: string[] = []
  const outcome = await runPairs(
    comparison(
      {
        prepare: () => void calls.push('prepare'),
        run: () => calls.push('run'),
        verify: () => void calls.push('verify'),
      },
      {},
    ),
    1,
  )
  expect(calls).toEqual(['prepare', 'run', 'verify', 'prepare', 'run', 'verify'])
  expect(outcome.verifiedCount).toBe(2)
  const wrong = {
    verify: () => {
      throw new Error('wrong result')
    },
  }
  await expect(runPairs(comparison({}, wrong), 1)).rejects.toThrow('wrong result')
})

test('of several ways of theirs the quickest is the one that is measured', async () => {
  const way = (command: string, value: number): Contender => ({ command, run: () => value })
  const several = [way('slow', 30), way('quick', 10), way('slower', 40)]
  const outcome = await runPairs({ ...comparison({ run: () => 5 }, {}), theirs: several }, 3)
  expect(outcome.theirs).toMatchObject({ command: 'quick', values: [10, 10, 10] })
  expect(outcome.ratio).toBe(0.5)
})

test('memory is looked at in the round that warms up, which is verified, cleared and not timed', async () => {
  const calls: string[] = []
  const { ours } = await runPairs(
    comparison(
      {
        prepare: () => void calls.push('prepare'),
        run: () => calls.push('run'),
        peakMemory: async () => {
          calls.push('look')
          return 4096
        },
        verify: () => void calls.push('verify'),
        clear: () => void calls.push('clear'),
      },
      {},
    ),
    1,
  )
  const after = ['verify', 'clear']
  expect(calls).toEqual(['prepare', 'look', ...after, 'prepare', 'run', ...after])
  expect(ours).toMatchObject({ peakMemory: 4096, values: [6] })
})

test('what a further GiB costs leaves out what every run costs', () => {
  const gib = 2 ** 30
  const step = (size: number, ms: number) => ({ size: size * gib, ms, peakMemory: undefined })
  expect(marginalCosts([step(1, 150), step(2, 200), step(4, 310)])).toEqual([50, 55])
})
