/** Power cuts on every verb, a small helping; `npm run crash-sim` has the large one (docs/ordering.md). */

import { describe, expect, test } from 'vitest'
import { geometryNamed } from './geometry.ts'
import { flushCountOf, record } from './session.ts'
import { doTask, geometriesOf } from './task.ts'
import { WORKLOADS, workloadNamed } from './workloads/index.ts'

/** How many times more than usual; set it for a long run. */
const SCALE = Number(process.env.COWPOINT_CRASH_SCALE ?? 1)

const common = { exhaustive: false, qemuEvery: 0, states: 250 * SCALE }

/** Each workload on one of its geometries, so that all of them have their turn. */
const turns = WORKLOADS.map((workload, index) => {
  const names = geometriesOf(workload)
  return { name: workload.name, geometry: names[index % names.length] as string }
})

test.each(turns)('$name on $geometry survives every power cut', async ({ name, geometry }) => {
  const task = { workload: name, geometry, seed: 1, ...common, engineMost: 6, recoveryMost: 1 }
  const { explorations, error } = await doTask(task)
  expect(error).toBe(undefined)
  const [exploration] = explorations
  expect(exploration?.failures).toEqual([])
  expect(exploration?.states).toBeGreaterThan(3)
})

describe('a flush that fails', () => {
  const verbs = [
    'snapshot-delete',
    'shrink',
    'free-and-reuse',
    'bitmap-session',
    'commit',
    'convert',
    'checkpoint-rename-internal',
    'checkpoint-to-internal-external',
  ]
  test.each(verbs)('is reported by %s, whichever it is, and costs nothing', async (name) => {
    const geometry = '4k'
    const run = await record(workloadNamed(name), geometryNamed(geometry), 1)
    const limits = { ...common, states: 0, engineMost: 2, recoveryMost: 0 }
    const task = { workload: name, geometry, seed: 1, ...limits, failingFlush: 'all' as const }
    const { explorations, error } = await doTask(task)
    expect(error).toBe(undefined)
    expect(explorations).toHaveLength(flushCountOf(run))
    expect(explorations.flatMap(({ failures }) => failures)).toEqual([])
  })
})
