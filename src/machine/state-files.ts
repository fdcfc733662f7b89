/**
 * The files that hold what a machine was besides its disks: memory and devices of bhyve, QEMU or libvirt, firmware variables, TPM
 * state. Says what each is and whether it can be believed; what a machine's disks are, it does not know.
 */

import { basename } from 'node:path'
import { CowpointError, UsageError } from '../base/errors.ts'
import { FileDevice, type FileSystem, nodeFiles, readSmallFile } from '../storage/index.ts'
import { BHYVE_META_LIMIT, readBhyveState } from './bhyve-state.ts'
import { isLibvirtSave, readLibvirtSave } from './libvirt-save.ts'
import { isQemuStream, readQemuStream, STREAM_HEAD_SIZE } from './qemu-stream.ts'
import { type StateReport, stateError, stateWarning } from './state-finding.ts'

/** What a state file is for. */
export const STATE_KINDS = [
  'bhyve',
  'qemu-migration',
  'libvirt-save',
  'nvram',
  'tpm',
  'other',
] as const

/** One of `STATE_KINDS`. */
export type StateKind = (typeof STATE_KINDS)[number]

/** State of a machine in one file, or, for bhyve, in three. */
export interface MachineState extends StateReport {
  readonly kind: StateKind
  /** The file that was named first: of a bhyve checkpoint the memory, then kernel state and meta file. */
  readonly paths: readonly string[]
}

/** A file that somebody names as state; the kind is found out where left out. */
export interface StateRequest {
  readonly path: string
  readonly kind?: StateKind | undefined
}

const BHYVE_ENDINGS = ['', '.kern', '.meta'] as const
/** bhyve's limit for a name with its ending. */
const LONGEST_BHYVE_NAME = 100
/** Where a firmware volume has its mark. */
const FIRMWARE_MARK = { offset: 40, text: '_FVH' }

/**
 * Looks at state files. A bhyve checkpoint may be named by any of its three files, or by all. Rejects with an IoError where a file
 * cannot be read, and with a UsageError `STATE_KIND` where it is not what it was said to be.
 */
export async function examineStateFiles(
  requests: readonly StateRequest[],
  files: FileSystem = nodeFiles,
): Promise<MachineState[]> {
  const states: MachineState[] = []
  const seen = new Set<string>()
  for (const { path, kind } of requests) {
    if (seen.has(path)) continue
    const stem = kind === undefined || kind === 'bhyve' ? await bhyveStem(files, path) : undefined
    if (kind === 'bhyve' && stem === undefined) {
      throw new UsageError('STATE_KIND', `no .kern and .meta file lie beside ${basename(path)}`)
    }
    const state =
      stem === undefined ? await examineOne(files, path, kind) : await examineBhyve(files, stem)
    for (const one of state.paths) seen.add(one)
    states.push(state)
  }
  return states
}

/** The name that the three files of a bhyve checkpoint share, where two or more of them exist with `path` among them. */
async function bhyveStem(files: FileSystem, path: string): Promise<string | undefined> {
  const stem = path.replace(/\.(kern|meta)$/, '')
  const others = BHYVE_ENDINGS.map((ending) => stem + ending).filter((one) => one !== path)
  const found = await Promise.all(others.map((one) => exists(files, one)))
  // A disk may have any file beside it; both endings together are bhyve's.
  if (stem === path) return found.every(Boolean) ? stem : undefined
  return found.some(Boolean) ? stem : undefined
}

async function exists(files: FileSystem, path: string): Promise<boolean> {
  try {
    return (await files.stat(path)).kind === 'file'
  } catch {
    return false
  }
}

async function examineBhyve(files: FileSystem, stem: string): Promise<MachineState> {
  const paths = BHYVE_ENDINGS.map((ending) => stem + ending)
  const [memory, kernel, meta] = paths as [string, string, string]
  const found = await Promise.all(paths.map((path) => exists(files, path)))
  const missing = paths.filter((_, index) => found[index] !== true)
  const base = { kind: 'bhyve', paths: paths.filter((_, index) => found[index] === true) } as const
  if (missing.length > 0) {
    const findings = missing.map((path) => stateError(`${basename(path)} is missing`))
    return { ...base, summary: 'bhyve state', facts: {}, findings }
  }
  const sizes = {
    memory: (await files.stat(memory)).size,
    kernel: (await files.stat(kernel)).size,
  }
  const text = Buffer.from(await readSmallFile(files, meta, BHYVE_META_LIMIT)).toString('utf8')
  const report = judge('bhyve state', () => readBhyveState(text, sizes))
  const name = `${basename(stem)}.kern`
  if (Buffer.byteLength(name) <= LONGEST_BHYVE_NAME) return { ...base, ...report }
  const long = stateWarning(
    `${name} is longer than the ${LONGEST_BHYVE_NAME} bytes that bhyve takes`,
  )
  return { ...base, ...report, findings: [...report.findings, long] }
}

/** A file that is not what its format demands is a finding, not a failure. */
function judge(summary: string, read: () => StateReport): StateReport {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return { summary, facts: {}, findings: [stateError(error.message)] }
  }
}

async function examineOne(
  files: FileSystem,
  path: string,
  asked: StateKind | undefined,
): Promise<MachineState> {
  await using file = await FileDevice.open(files, path)
  const head = new Uint8Array(Math.min(STREAM_HEAD_SIZE, file.size))
  await file.read(0, head)
  const found = kindOf(head, path)
  const kind = asked ?? found
  if (asked !== undefined && asked !== found && isStream(asked)) {
    throw new UsageError('STATE_KIND', `file is no ${asked} file`, { context: { kind: found } })
  }
  const base = { kind, paths: [path] }
  if (kind === 'qemu-migration') return { ...base, ...(await readQemuStream(file)) }
  if (kind === 'libvirt-save') return { ...base, ...(await readLibvirtSave(file)) }
  const findings = file.size === 0 ? [stateWarning(`${basename(path)} is empty`)] : []
  const words = { nvram: 'firmware variables', tpm: 'TPM state' } as Record<StateKind, string>
  return { ...base, summary: words[kind] ?? 'file', facts: {}, findings }
}

function isStream(kind: StateKind): boolean {
  return kind === 'qemu-migration' || kind === 'libvirt-save'
}

function kindOf(head: Uint8Array, path: string): StateKind {
  if (isLibvirtSave(head)) return 'libvirt-save'
  if (isQemuStream(head)) return 'qemu-migration'
  const { offset, text } = FIRMWARE_MARK
  if (Buffer.from(head.subarray(offset, offset + text.length)).toString('latin1') === text) {
    return 'nvram'
  }
  return /^tpm2?-\d\d\./.test(basename(path)) ? 'tpm' : 'other'
}
