/** One run to be explored, as it is handed to a process of its own, and what came of it. */

import { ALL_TIERS, DEFAULT_TIERS } from './choices.ts'
import { EngineOracle } from './engine-oracle.ts'
import { type Exploration, explore, type Failure } from './explore.ts'
import { GEOMETRIES, geometryNamed } from './geometry.ts'
import { QemuOracle } from './qemu-oracle.ts'
import { RecoveryOracle } from './recovery-oracle.ts'
import { flushCountOf, record } from './session.ts'
import type { Workload } from './workload.ts'
import { WORKLOADS, workloadNamed } from './workloads/index.ts'

/** What to explore, and how far. */
export interface Task {
  readonly workload: string
  readonly geometry: string
  readonly seed: number
  /** The flush that fails; `all` explores a run for each. */
  readonly failingFlush?: number | 'all'
  /** States to reach by random draws beyond the systematic ones. */
  readonly states: number
  readonly exhaustive: boolean
  /** One state in so many goes to qemu-img; none with 0. */
  readonly qemuEvery: number
  /** States that the engine opens, and whose recovery is cut off, before they become samples. */
  readonly engineMost: number
  readonly recoveryMost: number
}

/** What came of a task. */
export interface TaskResult {
  readonly task: Task
  readonly explorations: readonly Exploration[]
  /** States of second runs. */
  readonly recoveryStates: number
  readonly timeMs: number
  readonly error?: string
}

/** The geometries on which a workload runs. */
export function geometriesOf(workload: Workload): readonly string[] {
  return workload.geometries ?? GEOMETRIES.filter((one) => !one.isSpecial).map(({ name }) => name)
}

/** Every workload whose name begins with `verb`, on each of its geometries. */
export function pairsOf(verb: string | undefined): { workload: Workload; geometry: string }[] {
  return WORKLOADS.filter(({ name }) => verb === undefined || name.startsWith(verb)).flatMap(
    (workload) => geometriesOf(workload).map((geometry) => ({ workload, geometry })),
  )
}

/** Does a task; never rejects. */
export async function doTask(task: Task): Promise<TaskResult> {
  const begin = process.hrtime.bigint()
  const explorations: Exploration[] = []
  const recovery = new RecoveryOracle({ most: task.recoveryMost, every: 4000, statesEach: 3000 })
  let error: string | undefined
  try {
    for (const failingFlush of await flushesOf(task)) {
      explorations.push(await exploreOnce(task, failingFlush, recovery))
    }
  } catch (cause) {
    error = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)
  }
  const timeMs = Number(process.hrtime.bigint() - begin) / 1e6
  const result = { task, explorations, recoveryStates: recovery.states, timeMs }
  return error === undefined ? result : { ...result, error }
}

async function flushesOf({ workload, geometry, seed, failingFlush }: Task) {
  if (failingFlush !== 'all') return [failingFlush]
  const run = await record(workloadNamed(workload), geometryNamed(geometry), seed)
  return Array.from({ length: flushCountOf(run) }, (_, index) => index)
}

async function exploreOnce(
  task: Task,
  failingFlush: number | undefined,
  recovery: RecoveryOracle,
): Promise<Exploration> {
  const { workload, geometry, seed, states, exhaustive, qemuEvery, engineMost } = task
  const options = failingFlush === undefined ? {} : { failingFlush }
  const run = await record(workloadNamed(workload), geometryNamed(geometry), seed, options)
  using qemu = qemuEvery > 0 ? new QemuOracle({ every: qemuEvery }) : undefined
  const engine = new EngineOracle({ most: engineMost, every: 500 })
  const oracles = [engine, ...(task.recoveryMost > 0 ? [recovery] : [])]
  return await explore(run, {
    tiers: exhaustive ? ALL_TIERS : DEFAULT_TIERS,
    states,
    seed,
    oracles: qemu === undefined ? oracles : [...oracles, qemu],
  })
}

/** A failure as it is printed: what, when, and the line that brings it back. */
export function failureText({ reason, key, step, entry }: Failure): string {
  return [
    `  ${reason}`,
    `    in ${step}, power cut after: ${entry}`,
    `    npm run crash-sim -- --replay '${key}'`,
  ].join('\n')
}
