/**
 * Looks whether checkpoints can be relied on: every chain complete, every base as its overlay remembers it, every image without
 * errors, every state file what it was. Changes nothing.
 */

import { isAbsolute, join } from 'node:path'
import { CowpointError } from '../base/errors.ts'
import { createHash } from '../base/hash.ts'
import type { LongWork } from '../base/progress.ts'
import { compareNamedBase, openChain } from '../chain/index.ts'
import { checkImage } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { readJournal } from './journal.ts'
import { findInView, setsWith } from './lookup.ts'
import type { StateFile } from './manifest.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import type { CheckpointNode, CheckpointTree } from './tree.ts'

/** One thing that is not as it should be. */
export interface VerifyFinding {
  /** `error`: something cannot be read, or reads wrongly; `warning`: it may, or only takes space. */
  readonly severity: 'error' | 'warning'
  /** The file that it is about. */
  readonly path: string
  readonly code: string
  readonly message: string
}

/** What was verified. */
export interface VerifyReport {
  readonly checkpointCount: number
  readonly layerCount: number
  readonly stateFileCount: number
  readonly findings: readonly VerifyFinding[]
}

/** What is verified. */
export interface VerifyOptions extends LongWork {
  /** Names or `@id`s; all checkpoints where left out. */
  readonly checkpoints?: readonly string[] | undefined
}

/** Verifies checkpoints and the layers that they and the disks are made of. */
export async function verifyCheckpoints(
  catalogue: CheckpointCatalogue,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const view = await catalogue.view(options)
  const { trees, survey } = view
  const wanted = options.checkpoints ?? []
  const found = wanted.map((name) => findInView(view, name, catalogue.images))
  const sets = found.length > 0 ? [] : setsWith(trees, catalogue.images)
  const nodes = found.length > 0 ? found.map(({ node }) => node) : sets.flatMap(nodesOf)
  const verification = new Verification(catalogue, options)
  await verification.catalogueItself()
  verification.gaps(survey)
  for (const node of nodes) await verification.checkpoint(node)
  for (const { path, layer } of sets.flatMap(({ disks }) => disks)) {
    if (layer !== undefined) await verification.layer(layer)
    else verification.note('error', path, 'DISK_MISSING', 'active layer of the disk is not there')
  }
  return verification.report(nodes.length)
}

function nodesOf({ nodes }: CheckpointTree): CheckpointNode[] {
  return [...nodes.values()]
}

class Verification {
  readonly #catalogue: CheckpointCatalogue
  readonly #work: LongWork
  readonly #findings: VerifyFinding[] = []
  readonly #layers = new Set<string>()
  #stateFileCount = 0
  #done = 0

  constructor(catalogue: CheckpointCatalogue, work: LongWork) {
    this.#catalogue = catalogue
    this.#work = work
  }

  note(severity: VerifyFinding['severity'], path: string, code: string, message: string): void {
    this.#findings.push({ severity, path, code, message })
  }

  report(checkpointCount: number): VerifyReport {
    return {
      ...{ checkpointCount, layerCount: this.#layers.size, findings: this.#findings },
      stateFileCount: this.#stateFileCount,
    }
  }

  async catalogueItself(): Promise<void> {
    const { problem } = this.#catalogue
    const path = this.#catalogue.inside('catalogue.json')
    if (problem !== undefined) this.note('warning', path, problem.code, problem.message)
    const operation = await readJournal(this.#catalogue)
    if (operation === undefined) return
    const journal = this.#catalogue.inside('journal.json')
    this.note('warning', journal, 'JOURNAL_PENDING', `'${operation.verb}' was cut off`)
  }

  /** What was not looked at may be a checkpoint, or a disk that stands on one. */
  gaps({ skipped, isComplete }: Survey): void {
    for (const { path, reason, failure } of skipped) {
      const severity = failure === undefined ? 'warning' : 'error'
      this.note(severity, path, 'SEARCH_INCOMPLETE', `could not be looked at: ${reason}`)
    }
    if (isComplete || skipped.length > 0) return
    this.note('error', this.#catalogue.folder, 'SEARCH_INCOMPLETE', 'not all was looked at')
  }

  async checkpoint(node: CheckpointNode): Promise<void> {
    const { name, places, diskCount, note } = node
    if (places.length < diskCount) {
      const path = places[0]?.layer.path ?? ''
      const message = `checkpoint '${name}' is on ${diskCount} disks, of which ${places.length} were found`
      this.note('error', path, 'CHECKPOINT_INCOMPLETE', message)
    }
    for (const { layer } of places) await this.layer(layer)
    for (const file of note.stateFiles ?? []) await this.#stateFile(file)
  }

  /** The layer and all that it stands on. */
  async layer(layer: SurveyedLayer): Promise<void> {
    if (this.#layers.has(layer.key)) return
    this.#layers.add(layer.key)
    const { signal, onProgress } = this.#work
    signal?.throwIfAborted()
    const { path } = layer
    if (layer.format !== 'qcow2') return
    await this.#about(path, async () => {
      const { files, gate } = this.#catalogue
      const options = { files, gate, format: 'qcow2', forceShare: true } as const
      await using chain = await openChain(path, options)
      for (const { code, message, layerIndex } of chain.warnings) {
        if (layerIndex === 0 && code !== 'BASE_CHANGED') this.note('warning', path, code, message)
      }
      if (layer.header !== undefined) await this.#base(path, layer.header)
      await this.#check(path)
    })
    onProgress?.({ done: ++this.#done, total: Math.max(this.#done, this.#layers.size) })
  }

  async #base(path: string, header: NonNullable<SurveyedLayer['header']>): Promise<void> {
    const change = await compareNamedBase(this.#catalogue.files, path, header)
    if (change === undefined) return
    // A time alone can be that of a copy.
    const severity = change.kinds.every((kind) => kind === 'time') ? 'warning' : 'error'
    this.note(severity, path, 'BASE_CHANGED', `base ${change.message}`)
  }

  async #check(path: string): Promise<void> {
    await using file = await FileDevice.open(this.#catalogue.files, path)
    const { signal } = this.#work
    const report = await checkImage(file, { signal })
    const [wrong, leaked] = [report.corruptions + report.checkErrors, report.leaks]
    if (report.failure !== undefined) this.note('error', path, 'IMAGE_CORRUPT', report.failure)
    if (wrong > 0) this.note('error', path, 'IMAGE_CORRUPT', `image has ${wrong} errors`)
    if (leaked > 0) this.note('warning', path, 'IMAGE_LEAKS', `image has ${leaked} leaked clusters`)
  }

  async #stateFile({ path, size, sha256 }: StateFile): Promise<void> {
    this.#stateFileCount++
    const absolute = isAbsolute(path) ? path : join(this.#catalogue.folder, path)
    await this.#about(absolute, async () => {
      await using file = await FileDevice.open(this.#catalogue.files, absolute)
      if (file.size !== size) {
        const message = `state file has ${file.size} bytes and had ${size}`
        return this.note('error', absolute, 'STATE_FILE_CHANGED', message)
      }
      const hash = createHash('sha256')
      const chunk = new Uint8Array(1024 * 1024)
      for (let at = 0; at < size; at += chunk.length) {
        this.#work.signal?.throwIfAborted()
        const part = chunk.subarray(0, Math.min(chunk.length, size - at))
        await file.read(at, part)
        hash.update(part)
      }
      if (hash.digest('hex') === sha256) return
      this.note('error', absolute, 'STATE_FILE_CHANGED', 'state file has other content')
    })
  }

  async #about(path: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof CowpointError)) throw error
      this.note('error', path, error.code, error.message)
    }
  }
}
