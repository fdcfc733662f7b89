/** Runs a workload on files that record, and notes after each step what can be seen then. */

import type { BlockDevice } from '../../src/block/index.ts'
import { CrashDisk } from './crash-disk.ts'
import type { History, StepKind, StepRecord } from './expectation.ts'
import type { Geometry } from './geometry.ts'
import type { WalkedView } from './image-walk.ts'
import { type Random, randomFrom, seedOf } from './random.ts'
import { RecordingFiles } from './recording-files.ts'
import { SECTOR_SIZE, sectorOf } from './sector.ts'
import type { Snapshot, Trace } from './trace.ts'
import { ViewCollector, type ViewSet } from './view-set.ts'
import type { Workload, WorkloadContext } from './workload.ts'

/** A workload under way. */
export class Session {
  readonly files: RecordingFiles
  readonly geometry: Geometry
  readonly random: Random
  readonly steps: StepRecord[] = []
  readonly #workload: Workload
  readonly #collector: ViewCollector

  constructor(workload: Workload, context: WorkloadContext) {
    this.files = context.files
    this.geometry = context.geometry
    this.random = context.random
    this.#workload = workload
    this.#collector = new ViewCollector(workload.views)
  }

  /** Notes what can be seen before the first step, and begins to record. */
  start(): void {
    this.files.startRecording()
    this.steps.push({ name: 'start', kind: 'atomic', after: this.#look() })
  }

  /** A step that shows as a whole or not at all, and that lasts once it has ended. */
  async atomic<T>(name: string, action: () => Promise<T>): Promise<T> {
    const step = this.#begin()
    const result = await action()
    this.#end(name, 'atomic', this.#look())
    this.files.note({ op: 'lasting', step })
    return result
  }

  /** A step of several changes, each of which shows as a whole: every view is old or new by itself meanwhile. */
  async staged<T>(name: string, action: () => Promise<T>): Promise<T> {
    const step = this.#begin()
    const result = await action()
    this.#end(name, 'staged', this.#look())
    this.files.note({ op: 'lasting', step })
    return result
  }

  /** A step that is cut off anywhere, sector by sector: writes of a guest to `device`. */
  async guest(name: string, device: BlockDevice, action: () => Promise<unknown>): Promise<void> {
    this.#begin()
    await action()
    const before = this.steps.at(-1)!.after
    const [view, ...others] = before.views
    const contents = await contentsOf(device)
    const active: WalkedView = { ...(view as WalkedView), contents }
    this.#end(name, 'guest', { ...before, views: [active, ...others] })
  }

  /** A flush or a close: what was written before it lasts from now on. */
  async settle(name: string, action: () => Promise<unknown>): Promise<void> {
    const step = this.#begin()
    await action()
    const after = this.#look()
    if (name === 'close' && after.leaks > 0) throw new Error(`${after.leaks} leaks after a close`)
    this.#end(name, 'guest', after)
    this.files.note({ op: 'lasting', step })
  }

  #begin(): number {
    const step = this.steps.length
    this.files.note({ op: 'begin', step })
    return step
  }

  #end(name: string, kind: StepKind, after: ViewSet): void {
    this.steps.push({ name, kind, after })
  }

  /** What can be seen of the files as they are now, had everything arrived. */
  #look(): ViewSet {
    const snapshot = this.files.snapshot()
    const seen = this.#collector.collect(CrashDisk.of(snapshot, clusterSectorsOf(snapshot)))
    const [problem] = seen.problems
    if (problem !== undefined && !(this.#workload.isDamaged && this.steps.length === 0))
      throw new Error(`${this.#workload.name}: ${problem}`)
    return seen
  }
}

/** A run that is over, ready to be cut off anywhere. */
export interface RecordedRun {
  readonly id: string
  readonly workload: Workload
  readonly context: { readonly geometry: Geometry; readonly seed: number }
  readonly trace: Trace
  readonly history: History
  readonly clusterSectors: ReadonlyMap<number, number>
}

/** What differs from a plain run. */
export interface RunOptions {
  /** The flush that fails, counted from 0. */
  readonly failingFlush?: number
}

/** Runs a workload; the same arguments give the same trace. */
export async function record(
  workload: Workload,
  geometry: Geometry,
  seed: number,
  options: RunOptions = {},
): Promise<RecordedRun> {
  const { session, error } = await runOnce(workload, geometry, seed, undefined)
  if (error !== undefined) throw error
  let { steps } = session
  let { trace } = session.files
  if (options.failingFlush !== undefined) {
    const failing = await runOnce(workload, geometry, seed, options.failingFlush)
    if (failing.error === undefined) throw new Error(`${workload.name}: a failed flush was hidden`)
    trace = failing.session.files.trace
    steps = session.steps
  }
  const { leaks, bitmapSession = false, isDamaged = false } = workload
  const suffix = options.failingFlush === undefined ? '' : `.f${options.failingFlush}`
  return {
    id: `${workload.name}.${geometry.name}.${seed}${suffix}`,
    workload,
    context: { geometry, seed },
    trace,
    history: { steps, leaks: suffix === '' ? leaks : 'allowed', bitmapSession, isDamaged },
    clusterSectors: clusterSectorsOf(session.files.snapshot(), trace.start),
  }
}

async function runOnce(
  workload: Workload,
  geometry: Geometry,
  seed: number,
  failingFlush: number | undefined,
): Promise<{ session: Session; error: unknown }> {
  const files = new RecordingFiles()
  const context = { files, geometry, random: randomFrom(seed + seedOf(workload.name)) }
  await workload.setup(context)
  const session = new Session(workload, context)
  files.failingFlush = failingFlush
  session.start()
  try {
    await workload.run(session)
    return { session, error: undefined }
  } catch (error) {
    return { session, error }
  }
}

/** How many flushes a run makes: each of them can fail. */
export function flushCountOf(run: RecordedRun): number {
  return run.trace.entries.filter(({ op }) => op === 'flushed').length
}

/** Sectors in a cluster of each file that is an image, as its header says; 1 for others. */
export function clusterSectorsOf(...snapshots: readonly Snapshot[]): Map<number, number> {
  const found = new Map<number, number>()
  for (const { files } of snapshots) {
    for (const { id, sectors } of files.values()) {
      const bytes = sectors[0]?.bytes
      if (found.has(id) || bytes === undefined) continue
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const bits = view.getUint32(0) === 0x514649fb ? view.getUint32(20) : 0
      if (bits >= 9 && bits <= 21) found.set(id, 2 ** (bits - 9))
    }
  }
  return found
}

/** What a device reads as, a hash for each sector. */
export async function contentsOf(device: {
  readonly size: number
  read(offset: number, target: Uint8Array): Promise<void>
}): Promise<Int32Array> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  const count = Math.ceil(bytes.length / SECTOR_SIZE)
  return Int32Array.from({ length: count }, (_, index) => {
    const sector = new Uint8Array(SECTOR_SIZE)
    sector.set(bytes.subarray(index * SECTOR_SIZE, (index + 1) * SECTOR_SIZE))
    return sectorOf(sector).a
  })
}
