/**
 * The state of a machine that a checkpoint keeps beside its disks: memory and devices, firmware variables, TPM. Files are hashed, and
 * copied into the catalogue's folder unless they are only referred to; on the way back they are checked and put where they are wanted.
 */

import { basename, dirname, isAbsolute, join } from 'node:path'
import { CowpointError, ImageError, UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { statOf } from '../chain/index.ts'
import {
  copyFile,
  digestFile,
  examineStateFiles,
  type MachineState,
  type StateKind,
  type StateRequest,
} from '../machine/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { readJournal } from './journal.ts'
import type { CheckpointNote, StateFile } from './manifest.ts'
import type { PlannedOperation } from './plan.ts'

/** Which files belong to a checkpoint. */
export interface StateOptions {
  /** The files; what each is is found out where it does not say so. A bhyve checkpoint by any of its three. */
  readonly files: readonly StateRequest[]
  /** `copy` them into the catalogue's folder, the default, or refer to them where they are. */
  readonly mode?: 'copy' | 'reference' | undefined
}

/** A state file of a checkpoint, where it lies now. */
export interface PlacedState extends StateFile {
  /** Absolute. */
  readonly at: string
}

const MEMORY_KINDS: readonly StateKind[] = ['bhyve', 'qemu-migration', 'libvirt-save']
const BHYVE_PARTS = [
  { ending: '.kern', kind: 'bhyve-kernel' },
  { ending: '.meta', kind: 'bhyve-meta' },
]

/** State files on their way into a checkpoint that is being created. */
export class StateIntake {
  readonly #catalogue: CheckpointCatalogue
  readonly #states: readonly MachineState[]
  readonly #mode: 'copy' | 'reference'
  #id: string | undefined

  private constructor(
    catalogue: CheckpointCatalogue,
    states: readonly MachineState[],
    mode: 'copy' | 'reference',
  ) {
    this.#catalogue = catalogue
    this.#states = states
    this.#mode = mode
  }

  /**
   * Looks at the files. Rejects with an ImageError, code `STATE_DAMAGED`, where a hypervisor would refuse one of them, and with a
   * UsageError, code `STATE_NAME`, where two would get one name.
   */
  static async open(
    catalogue: CheckpointCatalogue,
    { files, mode = 'copy' }: StateOptions,
  ): Promise<StateIntake> {
    const states = await examineStateFiles(files, catalogue.files)
    for (const { paths, findings } of states) {
      const found = findings.find(({ severity }) => severity === 'error')
      if (found === undefined) continue
      throw new ImageError('STATE_DAMAGED', `state is damaged: ${found.message}`, {
        context: { path: paths[0] ?? '' },
      })
    }
    const names = states.flatMap(({ paths }) => paths.map((path) => basename(path)))
    const twice = names.find((name, index) => names.indexOf(name) < index)
    if (twice !== undefined) {
      throw new UsageError('STATE_NAME', `two state files are called ${twice}`, {
        context: { name: twice },
      })
    }
    return new StateIntake(catalogue, states, mode)
  }

  /** Whether the guest's memory is among them, so that it can go on where it was. */
  get hasMemory(): boolean {
    return this.#states.some(({ kind }) => MEMORY_KINDS.includes(kind))
  }

  /** Adds the files to the plan of the checkpoint `id`; copies them, durably, unless it is only for show. */
  async addTo(
    planned: PlannedOperation,
    id: string,
    { dryRun = false, ...work }: LongWork & { readonly dryRun?: boolean | undefined },
  ): Promise<PlannedOperation> {
    const folder = this.#catalogue.stateFolder(id)
    const isCopied = this.#mode === 'copy'
    const files = this.#states.flatMap((state) => state.paths.map((path) => ({ path, state })))
    if (isCopied && !dryRun && files.length > 0) {
      this.#id = id
      await this.#catalogue.files.makeFolder(folder, { parents: true })
      await this.#catalogue.files.syncFolder(dirname(folder))
    }
    const stateFiles: StateFile[] = []
    for (const { path, state } of files) {
      const to = join(folder, basename(path))
      const options = { ...work, files: this.#catalogue.files }
      const digest =
        isCopied && !dryRun ? await copyFile(path, to, options) : await digestFile(path, options)
      const kept = isCopied
        ? this.#catalogue.toRelative(to)
        : await this.#catalogue.files.realpath(path)
      const stored = isCopied ? ('copied' as const) : ('referenced' as const)
      stateFiles.push({ path: kept, ...digest, kind: kindOf(state, path), stored })
    }
    return withState(planned, id, stateFiles)
  }

  /** Removes the copies again, where the checkpoint has not come about. */
  async drop(): Promise<void> {
    const { files } = this.#catalogue
    if (this.#id === undefined || (await readJournal(this.#catalogue)) !== undefined) return
    const { checkpoints } = await this.#catalogue.read()
    if (checkpoints.some(({ id }) => id === this.#id)) return
    await removeStateFolder(files, this.#catalogue.stateFolder(this.#id))
  }
}

/** Removes a folder of copies with all that is in it. */
export async function removeStateFolder(
  files: CheckpointCatalogue['files'],
  folder: string,
): Promise<void> {
  if ((await statOf(files, folder))?.kind !== 'folder') return
  for (const name of await files.list(folder)) await files.unlink(join(folder, name))
  await files.removeFolder(folder)
}

function kindOf({ kind }: MachineState, path: string): string {
  if (kind !== 'bhyve') return kind
  return BHYVE_PARTS.find(({ ending }) => path.endsWith(ending))?.kind ?? 'bhyve-memory'
}

function withState(
  { plan, operation, holds }: PlannedOperation,
  id: string,
  stateFiles: readonly StateFile[],
): PlannedOperation {
  const copied = stateFiles.filter(({ stored }) => stored === 'copied')
  const size = copied.reduce((sum, file) => sum + file.size, 0)
  const note: CheckpointNote = { ...operation?.notes?.[id], stateFiles: [...stateFiles] }
  return {
    holds,
    operation: operation && { ...operation, notes: { ...operation.notes, [id]: note } },
    plan: {
      ...plan,
      steps: [...copied.map(({ path }) => `keep ${path}`), ...plan.steps],
      touches: [
        ...copied.map(({ path }) => ({ path, action: 'create' as const })),
        ...plan.touches,
      ],
      bytesRead: plan.bytesRead + stateFiles.reduce((sum, file) => sum + file.size, 0),
      bytesWritten: plan.bytesWritten + size,
      peakSpace: plan.peakSpace + size,
    },
  }
}

/** The state files of a checkpoint, with the places where they lie now. */
export function placesOfState(
  catalogue: CheckpointCatalogue,
  { stateFiles = [] }: CheckpointNote,
): readonly PlacedState[] {
  return stateFiles.map((file) => ({
    ...file,
    at: isAbsolute(file.path) ? file.path : join(catalogue.folder, file.path),
  }))
}

/** Rejects with an ImageError, code `STATE_CHANGED`, where a state file is not what the checkpoint remembers, or is gone. */
export async function checkState(
  catalogue: CheckpointCatalogue,
  placed: readonly PlacedState[],
  work: LongWork = {},
): Promise<void> {
  for (const { at, size, sha256 } of placed) {
    const found = await digestOf(catalogue, at, work)
    if (found?.size === size && found.sha256 === sha256) continue
    const what = found === undefined ? 'is gone' : 'is not what the checkpoint remembers'
    throw new ImageError('STATE_CHANGED', `state file ${basename(at)} ${what}`, {
      context: { path: at },
    })
  }
}

async function digestOf(
  catalogue: CheckpointCatalogue,
  path: string,
  work: LongWork,
): Promise<{ size: number; sha256: string } | undefined> {
  try {
    return await digestFile(path, { ...work, files: catalogue.files })
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
}

/** The paths that state files have once they are put back into `folder`. */
export function namesIn(folder: string, placed: readonly PlacedState[]): readonly string[] {
  return placed.map(({ at }) => join(folder, basename(at)))
}

/**
 * Copies state files under their own names into `folder`; gives out the new paths. Rejects with `FILE_EXISTS` before it writes
 * anything where a name is taken.
 */
export async function putBackState(
  catalogue: CheckpointCatalogue,
  placed: readonly PlacedState[],
  folder: string,
  work: LongWork = {},
): Promise<readonly string[]> {
  const { files } = catalogue
  const targets = namesIn(folder, placed)
  await refuseTaken(catalogue, targets)
  for (const [index, { at }] of placed.entries()) {
    await copyFile(at, targets[index] as string, { ...work, files })
  }
  return targets
}

/** Rejects with a UsageError, code `FILE_EXISTS`, where one of the paths is taken. */
export async function refuseTaken(
  { files }: CheckpointCatalogue,
  paths: readonly string[],
): Promise<void> {
  for (const path of paths) {
    if ((await statOf(files, path)) === undefined) continue
    throw new UsageError('FILE_EXISTS', `${basename(path)} is there already`, { context: { path } })
  }
}
