/** The simulator proves itself: mistakes in the order of writes are found, and what it finds comes back by its key. */

import { describe, expect, test } from 'vitest'
import { EngineOracle } from './engine-oracle.ts'
import { explore, stateAt } from './explore.ts'
import { geometryNamed } from './geometry.ts'
import { MUTANTS, tryMutant } from './mutants.ts'
import { readKey, writeKey } from './replay-key.ts'
import { record } from './session.ts'
import { drop, flushesOf, headerWriteOf } from './trace-edit.ts'
import { workloadNamed } from './workloads/index.ts'

test('there are twelve mistakes', () => {
  expect(MUTANTS).toHaveLength(12)
})

test.each(MUTANTS)('$name is found', async (mutant) => {
  const { failures } = await tryMutant(mutant)
  expect(failures).toHaveLength(1)
})

describe('without a mistake', () => {
  const places = new Map(MUTANTS.map((one) => [`${one.workload} on ${one.geometry}`, one]))
  test.each([...places.values()])('$workload on $geometry passes', async (mutant) => {
    const run = await record(workloadNamed(mutant.workload), geometryNamed(mutant.geometry), 1)
    const { failures } = await explore(run, { states: 500 })
    expect(failures).toEqual([])
  })
})

test('a failure comes back by its key', async () => {
  const run = await record(workloadNamed('snapshot-create'), geometryNamed('4k'), 1)
  const flush = flushesOf(run.trace).findLast((at) => at < headerWriteOf(run.trace))
  const broken = { ...run, trace: drop(run.trace, flush) }
  const { failures } = await explore(broken)
  expect(failures.length).toBeGreaterThan(0)
  for (const { key, reason } of failures) {
    const parts = readKey(key)
    expect(writeKey(parts)).toBe(key)
    const found = stateAt(broken, parts)
    expect(found.reason?.replace(/\d+/g, '#')).toBe(reason.replace(/\d+/g, '#'))
  }
})

test('the same seed gives the same trace', async () => {
  const [one, other] = await Promise.all(
    [1, 2].map(async () => {
      const run = await record(workloadNamed('snapshot-mix'), geometryNamed('4k'), 5)
      return (await explore(run, { mostStates: 300 })).states
    }),
  )
  expect(one).toBe(other)
  const run = await record(workloadNamed('guest-mix'), geometryNamed('512'), 3)
  const again = await record(workloadNamed('guest-mix'), geometryNamed('512'), 3)
  expect(again.trace.entries.map(({ op }) => op)).toEqual(run.trace.entries.map(({ op }) => op))
})

test('the engine does not agree with a fast check that is wrong', async () => {
  const run = await record(workloadNamed('snapshot-create'), geometryNamed('4k'), 1)
  const { disk, timeline, seen } = stateAt(run, readKey(`${run.id}/ordered/0/:`))
  const oracle = new EngineOracle({ most: 1, every: 1 })
  const { step, lasting } = timeline
  const state = {
    key: 'x',
    snapshot: disk.snapshot(),
    reason: undefined,
    index: 1,
    run,
    step,
    lasting,
  }
  expect(await oracle.look({ ...state, seen })).toBe(undefined)
  const views = seen.views.map((view, at) => {
    const contents = view.contents.slice()
    if (at === 1) contents[3] = (contents[3] as number) + 1
    return { ...view, contents }
  })
  expect(await oracle.look({ ...state, seen: { ...seen, views } })).toMatch(/sector 3/)
})
