/**
 * Lets the engine itself look at states: it opens each image for reading and for writing, checks it, and reads all views. A state
 * that differs from an earlier one only in what nothing refers to is the same to every reader, so each is looked at once.
 */

import { Gate, openChain } from '../../src/chain/index.ts'
import { checkImage } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashDisk } from './crash-disk.ts'
import type { Oracle, StateUnderTest } from './explore.ts'
import { RecordingFiles } from './recording-files.ts'
import { clusterSectorsOf, contentsOf } from './session.ts'
import type { Snapshot } from './trace.ts'
import { isSound, sameViews, ViewCollector, type ViewSet, type ViewSpec } from './view-set.ts'

const gate = new Gate({ allowAll: true })

/** Looks at the first `most` different states, and then at one in `every`. */
export class EngineOracle implements Oracle {
  readonly name = 'engine'
  readonly #most: number
  readonly #every: number
  readonly #known = new Set<number>()

  constructor({ most, every }: { most: number; every: number }) {
    this.#most = most
    this.#every = every
  }

  wants(index: number, seen: ViewSet, reason: string | undefined): boolean {
    if (reason !== undefined || !isSound(seen) || this.#known.has(seen.reach)) return false
    if (this.#known.size >= this.#most && index % this.#every !== 0) return false
    if (this.#known.size < this.#most * 4) this.#known.add(seen.reach)
    return true
  }

  async look({ snapshot, seen, run }: StateUnderTest): Promise<string | undefined> {
    try {
      const files = new RecordingFiles(snapshot)
      for (const spec of run.workload.views) {
        const wrong = await lookAt(files, spec, seen, run.history.leaks)
        if (wrong !== undefined) return wrong
      }
      return await recovers(files, seen, run.workload.views)
    } catch (error) {
      return `throws ${String(error)}`
    }
  }
}

async function lookAt(
  files: RecordingFiles,
  spec: ViewSpec,
  seen: ViewSet,
  leaks: 'none' | 'allowed',
): Promise<string | undefined> {
  if (!seen.views.some(({ label }) => label === `${spec.name} active`)) return undefined
  const path = await openingPath(files, spec)
  if (path === undefined) return `${spec.name} opens at none of its places`
  await using chain = await openChain(path, { files, gate, ...formatOf(spec) })
  if (spec.format !== 'raw') {
    await using device = await FileDevice.open(files, path)
    const { dataFile } = chain.active
    const report = await checkImage(device, dataFile === undefined ? {} : { dataFile })
    if (report.corruptions + report.checkErrors > 0) {
      return `${spec.name}: check finds ${report.findings[0]?.message ?? report.failure}`
    }
    if (leaks === 'none' && report.leaks > 0) return `${spec.name}: ${report.leaks} leaks`
  }
  const devices = [chain.device]
  for (const one of chain.active.image?.snapshots ?? []) {
    devices.push(await chain.active.image!.openSnapshot(one))
  }
  const views = seen.views.filter(({ label }) => label.startsWith(`${spec.name} `))
  if (views.length !== devices.length) return `${spec.name} has ${devices.length} views`
  for (const [index, device] of devices.entries()) {
    const contents = await contentsOf(device)
    const view = views[index]
    const differs = contents.findIndex((content, at) => view?.contents[at] !== content)
    if (contents.length !== view?.contents.length || differs >= 0) {
      return `${view?.label} is read otherwise in sector ${differs}`
    }
  }
  return undefined
}

async function openingPath(files: RecordingFiles, spec: ViewSpec): Promise<string | undefined> {
  for (const path of spec.paths) {
    try {
      const chain = await openChain(path, { files, gate, ...formatOf(spec) })
      await chain.close()
      return path
    } catch {
      // Where it is not, or no longer, it may be at another place.
    }
  }
  return undefined
}

function formatOf({ format }: ViewSpec): { format: 'raw' | 'qcow2' } {
  return { format: format ?? 'qcow2' }
}

/** Opening for writing brings every image back without a change of a view; a second time changes no byte. */
async function recovers(
  files: RecordingFiles,
  seen: ViewSet,
  specs: readonly ViewSpec[],
): Promise<string | undefined> {
  const collector = new ViewCollector(specs)
  const open = async () => {
    for (const spec of specs) {
      const path = await openingPath(files, spec)
      if (path === undefined) continue
      const chain = await openChain(path, { files, gate, writable: true, ...formatOf(spec) })
      await chain.close()
    }
    return files.snapshot()
  }
  const first = await open()
  const after = collector.collect(CrashDisk.of(first, clusterSectorsOf(first)))
  if (after.problems.length > 0) return `after opening for writing: ${after.problems[0]}`
  if (!sameViews(after.views, seen.views)) return 'opening for writing changes a view'
  if (after.leaks > seen.leaks) return 'opening for writing leaks'
  const second = await open()
  return sameFiles(first, second) ? undefined : 'opening for writing twice is not like once'
}

function sameFiles(one: Snapshot, other: Snapshot): boolean {
  if (one.files.size !== other.files.size) return false
  for (const [id, { sectors, length }] of one.files) {
    const file = other.files.get(id)
    if (file?.length !== length) return false
    if (sectors.some(({ a, b }, at) => a !== file.sectors[at]?.a || b !== file.sectors[at]?.b)) {
      return false
    }
  }
  return true
}
