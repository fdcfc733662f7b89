/**
 * Repairs in memory: after each power cut the old image or the repaired one, every view as before, taken back byte for byte; leaks
 * that look like lost data stay. The comparison with the real tool is in test/interop/repair.test.ts.
 */

import { describe, expect, test } from 'vitest'
import {
  checkImage,
  createQcow2,
  INCOMPATIBLE,
  Qcow2Image,
  type RepairOptions,
  type RepairReport,
  type RepairUndo,
  readHeader,
  repairImage,
  undoRepair,
} from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles, crashStates } from '../support/crash-files.ts'
import { type Patch, patched } from '../support/poke.ts'

const PATH = '/disk.qcow2'
const CLUSTER = 4096
const SIZE = 4 * 1024 * 1024

interface Shape {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
}

const SHAPES: readonly Shape[] = [
  { name: '4 KiB clusters', clusterSize: CLUSTER },
  { name: '512 B clusters', clusterSize: 512 },
  { name: '8-bit refcounts', clusterSize: CLUSTER, refcountBits: 8 },
  { name: 'extended L2', clusterSize: 16384, extendedL2: true },
  { name: 'version 2', clusterSize: CLUSTER, version: 2 },
]

const device = (files: CrashFiles, writable = true): Promise<FileDevice> =>
  FileDevice.open(files, PATH, { writable, growable: writable })

/** A disk with data, a snapshot, a compressed cluster and writes after the snapshot. */
async function prepare(shape: Shape): Promise<CrashFiles> {
  const files = new CrashFiles()
  const file = await FileDevice.open(files, PATH, { create: 'new', growable: true })
  await createQcow2(file, { size: SIZE, ...shape })
  await file.close()
  const image = await Qcow2Image.open(await device(files), { writable: true })
  const { clusterSize } = image.geometry
  await image.write(0, new Uint8Array(12 * clusterSize).fill(1))
  await image.createSnapshot({ name: 'first', date: new Date(0) })
  await image.write(2 * clusterSize, new Uint8Array(3 * clusterSize).fill(2))
  await image.writeCompressed(6 * clusterSize, new Uint8Array(clusterSize).fill(3))
  await image.write(SIZE - clusterSize, new Uint8Array(clusterSize).fill(4))
  await image.close()
  return files
}

/** The prepared disk with `patches` in it. */
async function broken(shape: Shape, ...patches: readonly Patch[]): Promise<CrashFiles> {
  const files = await prepare(shape)
  return new CrashFiles(new Map([[PATH, patched(files.bytes(PATH), patches)]]))
}

/** What the active disk and every snapshot read as. */
async function views(files: CrashFiles): Promise<string> {
  const image = await Qcow2Image.open(await device(files, false))
  const all: string[] = []
  for (const snapshot of [undefined, ...image.snapshots]) {
    const view = snapshot === undefined ? image : await image.openSnapshot(snapshot)
    const bytes = new Uint8Array(view.size)
    await view.read(0, bytes)
    all.push(`${snapshot?.name}: ${Buffer.from(bytes).toString('base64')}`)
  }
  await image.close()
  return all.join('\n')
}

async function repair(
  files: CrashFiles,
  options: Partial<RepairOptions> = {},
): Promise<RepairReport> {
  const file = await device(files, options.dryRun !== true)
  try {
    return await repairImage(file, { what: 'all', ...options })
  } finally {
    await file.close()
  }
}

async function verdict(files: CrashFiles): Promise<readonly number[]> {
  const report = await checkImage(await device(files, false))
  return [report.checkErrors, report.corruptions, report.leaks]
}

const SOUND = [0, 0, 0]

/** Damage that no view suffers from. */
const DAMAGES: Record<string, readonly Patch[]> = {
  'a count too high': [{ refcount: 5, value: 3 }],
  'a count of zero': [{ refcount: 5, value: 0 }],
  'a lost refcount block': [{ refcountTable: 0, value: 0 }],
  'a refcount block past the end of the file': [{ refcountTable: 1, value: '0x40000000' }],
  'a refcount table of rubbish': [{ refcountTable: 0, value: '0x1234567' }],
  'a flag in the L1 table': [{ l1: 0, value: '' }],
}

describe.each(SHAPES)('on $name', (shape) => {
  /** The patches; a flag depends on where the tables lie. */
  async function damaged(name: string): Promise<CrashFiles> {
    if (name !== 'a flag in the L1 table') return broken(shape, ...(DAMAGES[name] ?? []))
    const files = await prepare(shape)
    const bytes = files.bytes(PATH)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const l1 = Number(view.getBigUint64(40))
    bytes[l1] = (bytes[l1] as number) ^ 0x80
    return files
  }

  test.each(Object.keys(DAMAGES))('%s is repaired, and every view stays', async (name) => {
    const files = await damaged(name)
    const before = await views(files)
    expect(await verdict(files)).not.toEqual(SOUND)
    const report = await repair(files)
    expect(report.changed).toBe(true)
    expect(report.leaksFixed + report.corruptionsFixed).toBeGreaterThan(0)
    expect(await verdict(files)).toEqual(SOUND)
    expect(await views(files)).toBe(before)
    expect((await repair(files)).changed).toBe(false)
  })

  test.each(Object.keys(DAMAGES))('a power cut in the repair of %s is harmless', async (name) => {
    const files = await damaged(name)
    const [before, old] = [await views(files), await verdict(files)]
    const start = files.startRecording()
    await repair(files)
    let count = 0
    for (const state of crashStates(start, files.log)) {
      const crashed = new CrashFiles(state.files)
      // In a longer file there are more clusters whose refcounts cannot be read.
      const [errors, ...counts] = await verdict(crashed)
      const found = [Math.min(errors as number, old[0] as number), ...counts]
      expect([old, SOUND], state.key).toContainEqual(found)
      expect((await views(crashed)) === before, state.key).toBe(true)
      count++
    }
    expect(count).toBeGreaterThan(3)
  })

  test.each(Object.keys(DAMAGES))('the repair of %s can be taken back', async (name) => {
    const files = await damaged(name)
    const old = Buffer.from(files.bytes(PATH))
    let undo: RepairUndo | undefined
    await repair(files, {
      onUndo: async (record) => {
        undo = JSON.parse(JSON.stringify(record)) as RepairUndo
      },
    })
    expect(old.equals(files.bytes(PATH))).toBe(false)
    await undoRepair(await device(files), undo)
    expect(old.equals(files.bytes(PATH))).toBe(true)
  })

  test('a dry run says the same and writes nothing', async () => {
    const files = await damaged('a count of zero')
    const old = Buffer.from(files.bytes(PATH))
    const planned = await repair(files, { dryRun: true })
    expect(old.equals(files.bytes(PATH))).toBe(true)
    const { leaksFixed, corruptionsFixed, lines } = await repair(files)
    expect(planned).toMatchObject({ leaksFixed, corruptionsFixed, lines, changed: true })
  })

  test('a repaired image can be written to', async () => {
    const files = await damaged('a lost refcount block')
    await repair(files)
    const image = await Qcow2Image.open(await device(files), { writable: true })
    await image.write(0, new Uint8Array(SIZE / 2).fill(9))
    await image.deleteSnapshot(image.snapshots[0]!)
    await image.close()
    expect(await verdict(files)).toEqual(SOUND)
  })
})

const SHAPE = SHAPES[0] as Shape

test('a lost L1 entry costs no data: what it led to is not freed', async () => {
  const files = await broken(SHAPE, { l1: 0, value: 0 })
  const old = Buffer.from(files.bytes(PATH))
  for (const what of ['leaks', 'all'] as const) {
    const report = await repair(files, { what })
    expect(report.suspicion?.code).toBe('ORPHANED_TABLE')
    expect(report).toMatchObject({ changed: false, leaksFixed: 0 })
    expect(report.after.leaks).toBeGreaterThan(0)
  }
  expect(old.equals(files.bytes(PATH))).toBe(true)
  const forced = await repair(files, { what: 'leaks', force: true })
  expect(forced.leaksFixed).toBeGreaterThan(0)
  expect(await verdict(files)).toEqual(SOUND)
})

test('more leaks than a leak leaves behind are kept', async () => {
  const files = await prepare(SHAPE)
  const count = files.bytes(PATH).length / CLUSTER
  const grown = Buffer.alloc((count + 40) * CLUSTER)
  grown.set(files.bytes(PATH))
  const patches = Array.from({ length: 40 }, (_, at) => ({ refcount: count + at, value: 1 }))
  const leaking = new CrashFiles(new Map([[PATH, patched(grown, patches)]]))
  const report = await repair(leaking, { what: 'leaks' })
  expect(report.suspicion?.code).toBe('MANY_LEAKS')
  expect(await verdict(leaking)).toEqual([0, 0, 40])
})

test('what else is broken is repaired while suspicious leaks are kept', async () => {
  const files = await broken(SHAPE, { l1: 0, value: 0 }, { refcount: 0, value: 0 })
  const [, corruptions, leaks] = await verdict(files)
  expect(corruptions).toBe(1)
  expect(await repair(files)).toMatchObject({ changed: true, leaksFixed: 0, corruptionsFixed: 1 })
  expect(await verdict(files)).toEqual([0, 0, leaks])
})

test('marks of a dirty and a corrupt image go when nothing is wrong any more', async () => {
  const files = await broken(
    SHAPE,
    { header: 'incompatible_features', value: 3 },
    { refcount: 5, value: 0 },
  )
  await repair(files)
  const { header } = await readHeader(await device(files, false))
  const marks = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt
  expect(header.incompatibleFeatures & marks).toBe(0n)
})

test('marks stay where something cannot be repaired', async () => {
  const files = await broken(
    SHAPE,
    { header: 'incompatible_features', value: 2 },
    { l2: 3, value: '0x8000000000000a00' },
  )
  await repair(files)
  const { header } = await readHeader(await device(files, false))
  expect(header.incompatibleFeatures & INCOMPATIBLE.corrupt).toBe(INCOMPATIBLE.corrupt)
})

test('-r leaks leaves an image alone whose refcounts must be rebuilt', async () => {
  const files = await broken(SHAPE, { refcount: 5, value: 0 })
  const old = Buffer.from(files.bytes(PATH))
  const report = await repair(files, { what: 'leaks' })
  expect(report).toMatchObject({ changed: false, failure: 'Input/output error' })
  expect(old.equals(files.bytes(PATH))).toBe(true)
})

test('a repair is not taken back once the image was written to', async () => {
  const files = await broken(SHAPE, { refcount: 5, value: 3 })
  let undo: RepairUndo | undefined
  await repair(files, {
    onUndo: async (record) => {
      undo = record
    },
  })
  const image = await Qcow2Image.open(await device(files), { writable: true })
  await image.write(SIZE / 2, new Uint8Array(CLUSTER).fill(5))
  await image.close()
  const old = Buffer.from(files.bytes(PATH))
  await expect(undoRepair(await device(files), undo)).rejects.toMatchObject({
    code: 'UNDO_TOO_LATE',
  })
  expect(old.equals(files.bytes(PATH))).toBe(true)
  await expect(undoRepair(await device(files), { kind: 'else' })).rejects.toMatchObject({
    code: 'UNDO_INVALID',
  })
})

test('a repair that cannot write its undo changes nothing', async () => {
  const files = await broken(SHAPE, { refcount: 5, value: 0 })
  const old = Buffer.from(files.bytes(PATH))
  const failing = repair(files, { onUndo: () => Promise.reject(new Error('disk full')) })
  await expect(failing).rejects.toThrow('disk full')
  expect(old.equals(files.bytes(PATH))).toBe(true)
})
