/**
 * Snapshot tables that no reader can read to their end: `check -r all` keeps every snapshot that can be made out, drops what is
 * none, says so, and can be taken back. QEMU loses snapshots in some of them, and crashes in others.
 */

import { describe, expect, test } from 'vitest'
import { readU64 } from '../../src/base/bytes.ts'
import {
  checkImage,
  createQcow2,
  Qcow2Image,
  type RepairUndo,
  repairImage,
  undoRepair,
} from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice } from '../../src/storage/index.ts'
import { CrashFiles, crashStates } from '../support/crash-files.ts'
import { type Patch, patched } from '../support/poke.ts'

const CLUSTER = 4096
const PATH = '/disk.qcow2'

/** A disk that was written before each of three snapshots and after. */
async function image(version: 2 | 3 = 3): Promise<Uint8Array> {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: 256 * 1024, clusterSize: CLUSTER, version })
  const disk = await Qcow2Image.open(file.clone(), { writable: true })
  for (const [index, name] of ['first', 'second', 'thïrd'].entries()) {
    await disk.write(index * 3 * CLUSTER, new Uint8Array(5 * CLUSTER).fill(index + 1))
    await disk.createSnapshot({ name, date: new Date(0) })
  }
  await disk.write(0, new Uint8Array(CLUSTER).fill(9))
  const copy = disk.file as MemoryDevice
  await disk.flush()
  const bytes = new Uint8Array(copy.size)
  await copy.read(0, bytes)
  await disk.close()
  return bytes
}

/** What each view reads as; a snapshot by its name. */
async function views(bytes: Uint8Array): Promise<Map<string, string>> {
  await using disk = await Qcow2Image.open(MemoryDevice.from(bytes))
  const all = new Map<string, string>()
  const read = async (name: string, view: Pick<Qcow2Image, 'size' | 'read'>) => {
    const content = new Uint8Array(view.size)
    await view.read(0, content)
    all.set(name, Buffer.from(content).toString('base64'))
  }
  await read('', disk)
  for (const snapshot of disk.snapshots) {
    await read(snapshot.name, await disk.openSnapshot(snapshot))
  }
  return all
}

/** Lets the second entry have 2000 bytes of extra data, as a writer to come might. */
function withMuchExtra(bytes: Uint8Array): Uint8Array {
  const table = readU64(bytes, 64)
  const end = Math.ceil(bytes.length / CLUSTER) * CLUSTER
  const moved = new Uint8Array(end + CLUSTER)
  moved.set(bytes)
  const view = new DataView(moved.buffer)
  let [from, to] = [table, end]
  for (let index = 0; index < 3; index++) {
    const [id, name, extra] = [12, 14]
      .map((at) => view.getUint16(from + at))
      .concat(view.getUint32(from + 36)) as [number, number, number]
    const more = index === 1 ? 2000 - extra : 0
    moved.copyWithin(to, from, from + 40 + extra)
    moved.fill(0xee, to + 40 + extra, to + 40 + extra + more)
    view.setUint32(to + 36, extra + more)
    moved.copyWithin(to + 40 + extra + more, from + 40 + extra, from + 40 + extra + id + name)
    from += Math.ceil((40 + extra + id + name) / 8) * 8
    to += Math.ceil((40 + extra + more + id + name) / 8) * 8
  }
  // The old table is a leak then, and the new one has no refcount.
  view.setBigUint64(64, BigInt(end))
  return moved
}

interface Damage {
  readonly name: string
  readonly patches: readonly Patch[]
  readonly kept: readonly string[]
  readonly said: RegExp
}

const ALL = ['', 'first', 'second', 'thïrd']
const size = (index: number, value: number | string): Patch[] => [
  { snapshot: index, field: 'extra_data_size', value },
]

const DAMAGES: readonly Damage[] = [
  {
    name: 'a length past the table',
    patches: size(1, 0x10000000),
    kept: ALL,
    said: /entry 1 \(2684/,
  },
  { name: 'a length of 1025', patches: size(1, 1025), kept: ALL, said: /entry 1 \(1025\)/ },
  {
    name: 'a wrong length in the last entry',
    patches: size(2, '0xffffffff'),
    kept: ALL,
    said: /entry 2/,
  },
  {
    name: 'a count of 65537',
    patches: [{ header: 'nb_snapshots', value: 65537 }],
    kept: ALL,
    said: /Discarding 65534 overhanging/,
  },
  {
    name: 'a count of all bits',
    patches: [{ header: 'nb_snapshots', value: '0xffffffff' }],
    kept: ALL,
    said: /Discarding 4294967292 overhanging/,
  },
  {
    name: 'a table that lies nowhere',
    patches: [{ header: 'snapshots_offset', value: 0x3200 }],
    kept: [''],
    said: /Discarding 3 overhanging/,
  },
  {
    name: 'a length and an L1 table that cannot be',
    patches: [...size(1, 5000), { snapshot: 1, field: 'l1_table_offset', value: 0x77 }],
    kept: ['', 'first'],
    said: /Discarding 2 overhanging/,
  },
]

describe.each([3, 2] as const)('in version %i', (version) => {
  test.each(DAMAGES)('$name is mended', async ({ patches, kept, said }) => {
    const sound = await image(version)
    const before = await views(sound)
    const broken = patched(sound, patches)
    await expect(Qcow2Image.open(MemoryDevice.from(broken))).rejects.toThrow()
    expect((await checkImage(MemoryDevice.from(broken))).failure).toBeDefined()
    const files = new CrashFiles(new Map([[PATH, broken]]))
    const { report, undo } = await repair(files)
    expect(report.lines.join('\n')).toMatch(said)
    expect(report.after).toMatchObject({ corruptions: 0, checkErrors: 0 })
    expect(report.after.failure).toBeUndefined()
    const after = await views(files.bytes(PATH))
    expect([...after.keys()]).toEqual(kept)
    for (const name of kept) expect(after.get(name) === before.get(name), name).toBe(true)
    // What dropped snapshots held is kept as long as nobody insists.
    if (kept.length === ALL.length) expect(report.after.leaks).toBe(0)
    else expect(report.suspicion).toBeDefined()
    await undoRepair(await device(files), undo)
    expect(Buffer.from(broken).equals(files.bytes(PATH))).toBe(true)
  })
})

const device = (files: CrashFiles) =>
  FileDevice.open(files, PATH, { writable: true, growable: true })

async function repair(files: CrashFiles) {
  let undo: RepairUndo | undefined
  await using file = await device(files)
  const report = await repairImage(file, {
    what: 'all',
    onUndo: async (record) => {
      undo = record
    },
  })
  return { report, undo }
}

test('more extra data than is allowed is cut, and the rest of it kept', async () => {
  const before = await views(await image())
  const files = new CrashFiles(new Map([[PATH, withMuchExtra(await image())]]))
  const { report } = await repair(files)
  expect(report.lines[0]).toBe(
    'Discarding too much extra metadata in snapshot table entry 1 (2000 > 1024)',
  )
  expect(report.after).toMatchObject({ corruptions: 0, checkErrors: 0, leaks: 0 })
  expect(await views(files.bytes(PATH))).toEqual(before)
  await using disk = await Qcow2Image.open(MemoryDevice.from(files.bytes(PATH)))
  expect(disk.snapshots[1]?.unknownExtra).toEqual(new Uint8Array(1000).fill(0xee))
})

test('a power cut leaves the broken table or the mended one', async () => {
  const files = new CrashFiles(new Map([[PATH, patched(await image(), size(1, 0x10000000))]]))
  const start = files.startRecording()
  await repair(files)
  let mended = 0
  for (const state of crashStates(start, files.log)) {
    const file = MemoryDevice.from(state.files.get(PATH) ?? new Uint8Array(0))
    const { failure, corruptions, leaks, checkErrors } = await checkImage(file)
    if (failure === undefined) {
      expect([corruptions, leaks, checkErrors], state.key).toEqual([0, 0, 0])
      mended++
    }
  }
  expect(mended).toBeGreaterThan(0)
})

test('-r leaks and a dry run write nothing', async () => {
  const broken = patched(await image(), size(1, 1025))
  for (const options of [{ what: 'leaks' }, { what: 'all', dryRun: true }] as const) {
    const files = new CrashFiles(new Map([[PATH, broken]]))
    await using file = await device(files)
    const report = await repairImage(file, options)
    expect(report.changed).toBe(options.what === 'all')
    expect(report.before.failure === undefined).toBe(options.what === 'all')
    expect(Buffer.from(broken).equals(files.bytes(PATH))).toBe(true)
  }
})
