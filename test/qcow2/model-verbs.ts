/** The verbs of the model of one image: each chooses by a number, does its work in the engine, and says what it means. */

import { expect } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import type { AmendOptions, BitmapChange } from '../../src/qcow2/index.ts'
import { stamped } from './model-geometry.ts'
import { type VERBS, windowsOf } from './model-steps.ts'
import type { Walk } from './model-walk.ts'

type Verb = (walk: Walk, pick: number) => Promise<void>

/** Does one verb. */
export function doVerb(walk: Walk, verb: (typeof VERBS)[number], pick: number): Promise<void> {
  return DO[verb](walk, pick)
}

/** Whether an error is one of those that a user may meet here. */
export function hasCode(error: unknown, codes: readonly string[]): boolean {
  return error instanceof CowpointError && codes.includes(error.code)
}

async function attempt(codes: readonly string[], work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    if (!hasCode(error, codes)) throw error
    return false
  }
}

/** Takes a snapshot, with VM state if there is some. */
async function createSnapshot(walk: Walk, vmState?: Uint8Array): Promise<void> {
  const name = `s${walk.snapshotCount++}`
  const vmStateSize = vmState?.length ?? 0
  const isDone = await walk.mayOverflow(() => walk.image.createSnapshot({ name, vmStateSize }))
  // What was written stays behind the disk, and says nothing.
  walk.activeVm = undefined
  if (!isDone) return
  walk.model.createSnapshot(name)
  if (vmState !== undefined) walk.vmStates.set(name, vmState)
}

const snapshot: Verb = async (walk) => {
  if (walk.shape.data === 'inside') await createSnapshot(walk)
}

const vmSnapshot: Verb = async (walk, pick) => {
  const { clusterSize, data } = walk.shape
  if (data !== 'inside') return
  const bytes = stamped(pick, Math.floor(((pick % 10) + 1) * 0.3 * clusterSize) + pick)
  const cut = Math.floor(bytes.length / 3)
  await walk.image.writeVmState(cut, bytes.subarray(cut))
  await walk.image.writeVmState(0, bytes.subarray(0, cut))
  walk.activeVm = bytes
  // Some are written and never taken: they must vanish without a leak.
  if (pick % 4 > 0) await createSnapshot(walk, bytes)
}

const apply: Verb = async (walk, pick) => {
  const found = chosen(walk, pick)
  if (found === undefined) return
  if (!(await walk.mayOverflow(() => walk.image.applySnapshot(found)))) return
  walk.model.applySnapshot(found.name)
  walk.activeVm = walk.vmStates.get(found.name)
}

const remove: Verb = async (walk, pick) => {
  const found = chosen(walk, pick)
  if (found === undefined) return
  await walk.image.deleteSnapshot(found)
  walk.model.deleteSnapshot(found.name)
  walk.vmStates.delete(found.name)
}

const rename: Verb = async (walk, pick) => {
  const found = chosen(walk, pick)
  if (found === undefined) return
  const name = `s${walk.snapshotCount++}`
  await walk.image.changeSnapshots([{ snapshot: found, name }])
  walk.model.renameSnapshot(found.name, name)
  const vmState = walk.vmStates.get(found.name)
  walk.vmStates.delete(found.name)
  if (vmState !== undefined) walk.vmStates.set(name, vmState)
}

const grow: Verb = async (walk, pick) => {
  const { clusterSize } = walk.shape
  const size = walk.model.size + 512 * Math.floor(1 + (pick / 100) ** 3 * 3 * (clusterSize / 512))
  const hasBacking = walk.shape.backing !== 'none'
  const preallocation = pick % 5 === 0 && !hasBacking ? 'metadata' : 'off'
  await resize(walk, size, () => walk.image.resizeDisk(size, { preallocation }))
}

const shrink: Verb = async (walk, pick) => {
  const size = walk.model.size - 512 * Math.floor(1 + (pick / 100) ** 2 * (walk.model.size / 1024))
  if (size < 512) return
  await resize(walk, size, () => walk.image.resizeDisk(size, { shrink: true }))
}

async function resize(walk: Walk, size: number, work: () => Promise<void>): Promise<void> {
  if (walk.shape.version === 2 && walk.image.snapshots.length > 0) {
    await expect(work()).rejects.toMatchObject({ code: 'RESIZE_SNAPSHOTS' })
    return
  }
  await work()
  walk.model.resize(size)
  walk.activeVm = undefined
}

const amend: Verb = async (walk, pick) => {
  const { shape } = walk
  const bits = 2 ** (pick % 7)
  const choices: readonly AmendOptions[] = [
    ...[{ version: 2 as const }, { version: 3 as const }, { refcountBits: bits }],
    ...[{ lazyRefcounts: pick % 2 === 0 }, { version: 3 as const, refcountBits: bits }],
  ]
  const options = choices[Math.floor(pick / 7) % choices.length] as AmendOptions
  const codes = ['DOWNGRADE', 'VERSION_2', 'REFCOUNT_WIDTH', 'DATA_FILE_RAW']
  if (!(await attempt(codes, () => walk.image.amend(options)))) return
  const { version = shape.version, refcountBits = shape.refcountBits } = options
  walk.shape = { ...shape, version, refcountBits }
  walk.model.geometry = { ...walk.model.geometry, version }
}

const compact: Verb = async (walk, pick) => {
  const maxMove = pick % 3 === 0 ? { maxMove: 512 * (1 + pick) } : {}
  await walk.image.compact({ zero: pick % 2 === 0, ...maxMove })
  // It belongs to no snapshot, and nobody promised to keep it.
  walk.activeVm = undefined
}

const ACTIONS = ['remove', 'clear', 'merge', 'enable', 'disable'] as const

const bitmap: Verb = async (walk, pick) => {
  const { bitmaps, shape } = walk
  const names = [...bitmaps.keys()]
  const isNew = names.length === 0 || (pick % 3 === 0 && names.length < 3)
  const name = isNew ? `b${pick}` : (names[pick % names.length] as string)
  const source = names[(pick >> 2) % Math.max(1, names.length)] ?? name
  const granularity = 512 * 2 ** (pick % 6)
  const enabled = pick % 4 !== 0
  const action = isNew ? 'add' : (ACTIONS[pick % ACTIONS.length] ?? 'clear')
  const change: BitmapChange =
    action === 'add'
      ? { action, name, granularity, enabled }
      : action === 'merge'
        ? { action, name, source }
        : { action, name }
  const codes =
    shape.version === 2
      ? ['BITMAPS_NOT_SUPPORTED']
      : bitmaps.has(name) && isNew
        ? ['BITMAP_EXISTS']
        : []
  if (!(await attempt(codes, () => walk.image.changeBitmaps([change])))) return
  const known = bitmaps.get(name)
  if (action === 'add') bitmaps.set(name, { enabled, granularity, truth: new Set() })
  else if (action === 'remove') bitmaps.delete(name)
  else if (action === 'clear') known?.truth.clear()
  else if (action === 'merge')
    for (const one of bitmaps.get(source)?.truth ?? []) known?.truth.add(one)
  else if (known !== undefined) known.enabled = action === 'enable'
}

/** What is said to be zeroes must read so, and everything is said once. */
const map: Verb = async ({ image, model, shape }) => {
  for (const { offset, length } of windowsOf(model.size, shape)) {
    let at = offset
    for (const extent of await image.extents(offset, length)) {
      expect(extent.offset).toBe(at)
      at += extent.length
      if (extent.kind !== 'zero') continue
      const bytes = model.read(extent.offset, extent.length)
      if (bytes.some((byte) => byte !== 0)) expect.fail(`no zeroes at ${extent.offset}`)
    }
    expect(at).toBe(offset + length)
  }
}

const reopen: Verb = async (walk) => {
  await walk.image.close()
  walk.image = await walk.subject.open(true)
}

const audit: Verb = async (walk) => {
  await walk.image.flush()
  await walk.check()
  await walk.compare()
}

const DO: Readonly<Record<(typeof VERBS)[number], Verb>> = {
  ...{ snapshot, 'vm-snapshot': vmSnapshot, apply, delete: remove, rename, grow, shrink },
  ...{ amend, compact, bitmap, map, reopen, audit },
}

function chosen({ image }: Walk, pick: number) {
  const { snapshots } = image
  return snapshots[pick % Math.max(1, snapshots.length)]
}
