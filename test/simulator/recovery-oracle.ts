/**
 * Cuts the power again while somebody gets going after a power cut: opening and writing, repairing, doing the verb again. The
 * states of that second run are explored like those of the first.
 */

import { Gate, openChain } from '../../src/chain/index.ts'
import { repairImage } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashDisk } from './crash-disk.ts'
import type { StepRecord } from './expectation.ts'
import { explore, type Oracle, type StateUnderTest } from './explore.ts'
import { randomFrom } from './random.ts'
import { RecordingFiles } from './recording-files.ts'
import { clusterSectorsOf, type RecordedRun } from './session.ts'
import { isSound, ViewCollector, type ViewSet } from './view-set.ts'

const gate = new Gate({ allowAll: true })

/** The ways to get going again. */
export const RECOVERIES = ['open', 'repair', 'redo'] as const
/** One of them. */
export type Recovery = (typeof RECOVERIES)[number]

/** Explores the recovery of some states. */
export class RecoveryOracle implements Oracle {
  readonly name = 'recovery'
  /** States of the second runs. */
  states = 0
  readonly #most: number
  readonly #every: number
  readonly #statesEach: number
  readonly #known = new Set<number>()

  constructor({ most, every, statesEach }: { most: number; every: number; statesEach: number }) {
    this.#most = most
    this.#every = every
    this.#statesEach = statesEach
  }

  wants(index: number, seen: ViewSet, reason: string | undefined): boolean {
    if (reason !== undefined || this.#known.has(seen.reach)) return false
    if (this.#known.size >= this.#most && index % this.#every !== 0) return false
    if (this.#known.size < this.#most * 4) this.#known.add(seen.reach)
    return true
  }

  async look(state: StateUnderTest): Promise<string | undefined> {
    for (const recovery of RECOVERIES) {
      try {
        const run = await recoveryRun(state, recovery)
        if (run === undefined) continue
        const options = { mostStates: this.#statesEach, failureLimit: 1, seed: state.index }
        const { failures, states } = await explore(run, options)
        this.states += states
        const [failure] = failures
        if (failure !== undefined) return `${recovery}: ${failure.reason} (${failure.key})`
      } catch (error) {
        return `${recovery}: throws ${String(error)}`
      }
    }
    return undefined
  }
}

/** The run of a recovery from a state, as a run of its own; undefined where that one does not apply. */
export async function recoveryRun(
  { snapshot, seen, run, key }: Pick<StateUnderTest, 'snapshot' | 'seen' | 'run' | 'key'>,
  recovery: Recovery,
): Promise<RecordedRun | undefined> {
  const { workload, context } = run
  if (recovery === 'redo' && workload.redo === undefined) return undefined
  if (recovery !== 'redo' && seen.problems.length > 0) return undefined
  if (recovery === 'repair' && (seen.leaks === 0 || !isSound(seen))) return undefined
  const files = new RecordingFiles(snapshot)
  files.startRecording()
  const step: StepRecord = { name: recovery, kind: 'atomic', after: seen }
  const start = { ...step, name: 'power cut' }
  files.note({ op: 'begin', step: 1 })
  const geometry = context.geometry
  if (recovery === 'redo') await workload.redo?.({ files, geometry, random: randomFrom(0) })
  else for (const spec of workload.views) await recover(files, spec.paths, recovery)
  files.note({ op: 'lasting', step: 1 })
  const end = files.snapshot()
  const clusterSectors = clusterSectorsOf(end, snapshot)
  const after = new ViewCollector(workload.views).collect(CrashDisk.of(end, clusterSectors))
  if (recovery === 'repair' && after.leaks > 0)
    throw new Error(`repair leaves ${after.leaks} leaks`)
  const expected = recovery === 'redo' ? (run.history.steps.at(-1)?.after ?? seen) : seen
  return {
    ...run,
    id: `${key}~${recovery}`,
    trace: files.trace,
    clusterSectors,
    history: {
      leaks: 'allowed',
      bitmapSession: true,
      isDamaged: run.history.isDamaged ?? false,
      steps: [start, { ...step, after: { ...expected, facts: after.facts } }],
    },
  }
}

async function recover(
  files: RecordingFiles,
  paths: readonly string[],
  recovery: 'open' | 'repair',
): Promise<void> {
  for (const path of paths) {
    if (!files.names.has(path)) continue
    if (recovery === 'repair') {
      await using device = await FileDevice.open(files, path, { writable: true, growable: true })
      await repairImage(device, { what: 'all', force: true })
      continue
    }
    const options = { files, gate, writable: true, format: 'qcow2' } as const
    const chain = await openChain(path, options).catch(() => undefined)
    if (chain === undefined) continue
    // What it reads anyway is written, so that no view changes.
    const bytes = new Uint8Array(Math.min(3000, chain.device.size))
    await chain.device.read(0, bytes)
    await chain.device.write(0, bytes)
    await chain.close()
  }
}
