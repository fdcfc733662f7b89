/**
 * Images that lie: cut at every place, flipped in every structure, with absurd claims. Whatever is done to them
 * ends, with a result or with a typed error, and asks for no more memory than the file is worth.
 */

import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { denseImage } from '../hostile/cases.ts'
import { lookAtAll, workOn } from '../hostile/trial.ts'
import { builtImage } from '../support/built-image.ts'
import { buildImage, filled } from '../support/image-builder.ts'
import { unpackImage } from '../support/image-matrix.ts'
import { ImageBytes, type Patch, patched } from '../support/poke.ts'
import { tempFolder } from '../support/temp.ts'
import { measureAllocations } from './hostile-limits.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
const MIB = 1024 * 1024
/** The largest table that a header may claim without the file having it is a refcount table of 8 MiB. */
const MEMORY_LIMIT = 9 * MIB

async function survives(bytes: Uint8Array): Promise<void> {
  const before = Buffer.from(bytes)
  await lookAtAll(bytes)
  await workOn(bytes)
  expect(before.equals(bytes)).toBe(true)
}

describe('an image cut short', () => {
  test.each([512, 4096])('at any sector, with clusters of %i, is refused or read', async (size) => {
    const bytes = await denseImage(size)
    const step = size === 512 ? 512 : 2048
    for (let length = 0; length < bytes.length; length += step) {
      await survives(bytes.subarray(0, length))
    }
  })

  test('at the edges of each structure is refused or read', async () => {
    const built = builtImage()
    const edges = [
      built.refcountTable,
      ...built.refcountBlocks,
      built.l1,
      ...built.l2.values(),
      ...built.data.values(),
      built.snapshotTable,
      ...built.snapshotL1,
    ].flatMap((at) => [at - 1, at, at + 1, at + 7, at + 8, at + 40, at + 4095, at + 4096])
    for (const length of [1, 4, 8, 71, 72, 103, 104, 105, 112, 511, 512, ...edges]) {
      await survives(built.bytes.subarray(0, length))
    }
  })

  test('never gives bytes for a data cluster that the file does not have', async () => {
    const built = builtImage()
    const at = built.data.get(3)!
    const whole = patched(built.bytes, [{ header: 'nb_snapshots', value: 0 }])
    await using image = await Qcow2Image.open(MemoryDevice.from(whole.subarray(0, at)))
    await expect(image.read(3 * 4096, new Uint8Array(4096))).rejects.toMatchObject({
      name: 'ImageError',
      code: 'OUTSIDE_FILE',
      context: { offset: at },
    })
  })
})

describe('an image with flipped bytes', () => {
  const flips = fc.array(
    fc.record({ at: fc.nat(1_000_000), value: fc.integer({ min: 0, max: 255 }) }),
    { minLength: 1, maxLength: 6 },
  )

  test.each([
    ['512 B clusters', 512, false],
    ['4 KiB clusters', 4096, false],
    ['extended L2', 16_384, true],
  ] as const)(
    'anywhere in its metadata ends with a result or a typed error, with %s',
    async (_name, clusterSize, extendedL2) => {
      const bytes = await denseImage(clusterSize, extendedL2)
      const places = metadataPlaces(bytes)
      await fc.assert(
        fc.asyncProperty(flips, async (list) => {
          const broken = bytes.slice()
          for (const { at, value } of list) broken[places[at % places.length]!] = value
          await survives(broken)
        }),
        { numRuns: Math.ceil(120 * FACTOR), interruptAfterTimeLimit: 60_000 * FACTOR },
      )
    },
    90_000 * FACTOR,
  )

  test.each([
    'bitmaps-512-clusters',
    'zlib-512',
    'snapshots-vm-state',
    'extended-l2-snapshots',
    'unknown-extension',
    'lazy-dirty',
  ])(
    'made by QEMU (%s) ends with a result or a typed error',
    async (name) => {
      const bytes = readFileSync(unpackImage(name, tempFolder()))
      const places = metadataPlaces(bytes)
      await fc.assert(
        fc.asyncProperty(flips, async (list) => {
          const broken = Uint8Array.from(bytes)
          for (const { at, value } of list) broken[places[at % places.length]!] = value
          await survives(broken)
        }),
        { numRuns: Math.ceil(25 * FACTOR), interruptAfterTimeLimit: 60_000 * FACTOR },
      )
    },
    90_000 * FACTOR,
  )

  test(
    'in its header fields ends with a result or a typed error',
    async () => {
      const bytes = await denseImage(4096)
      const extreme = fc.constantFrom(
        0,
        1,
        2,
        7,
        8,
        9,
        255,
        256,
        4095,
        4096,
        65_536,
        2 ** 31 - 1,
        2 ** 32 - 1,
      )
      const change = fc.record({ at: fc.constantFrom(...headerWords()), value: extreme })
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (list) => {
          const broken = bytes.slice()
          for (const { at, value } of list) new DataView(broken.buffer).setUint32(at, value)
          const largest = await measureAllocations(() => survives(broken))
          expect(largest).toBeLessThan(MEMORY_LIMIT + bytes.length)
        }),
        { numRuns: Math.ceil(150 * FACTOR), interruptAfterTimeLimit: 60_000 * FACTOR },
      )
    },
    90_000 * FACTOR,
  )
})

/** Offsets of the 32-bit words of the header. */
function headerWords(): number[] {
  return Array.from({ length: 28 }, (_, index) => index * 4)
}

/** The offsets of bytes that are not guest data: everything that is not constant in its sector. */
function metadataPlaces(bytes: Uint8Array): number[] {
  const places: number[] = []
  for (let sector = 0; sector < bytes.length; sector += 512) {
    const part = bytes.subarray(sector, Math.min(bytes.length, sector + 512))
    if (part.every((byte) => byte === part[0] && byte !== 0)) continue
    const isEmpty = part.every((byte) => byte === 0)
    for (let at = 0; at < part.length; at += isEmpty ? 64 : 1) places.push(sector + at)
  }
  return places
}

describe('absurd claims', () => {
  const claims: Record<string, readonly Patch[]> = {
    'an L1 table of 4 GiB': [{ header: 'l1_size', value: 0xffffffff }],
    'an L1 table of 32 MiB': [{ header: 'l1_size', value: 4 * MIB }],
    'a refcount table of 2^32 clusters': [{ header: 'refcount_table_clusters', value: 0xffffffff }],
    'a refcount table of 8 MiB': [{ header: 'refcount_table_clusters', value: 2048 }],
    '2^32 snapshots': [{ header: 'nb_snapshots', value: 0xffffffff }],
    '65,536 snapshots that are not there': [{ header: 'nb_snapshots', value: 65_536 }],
    'a snapshot with an L1 table of 32 GiB': [{ snapshot: 0, field: 'l1_size', value: 0xffffffff }],
    'a snapshot with 4 GiB of extra data': [
      { snapshot: 0, field: 'extra_data_size', value: 0xffffffff },
    ],
    'a snapshot of 2^63 bytes': [
      { snapshot: 0, field: 'extra_disk_size', value: '0x7fffffffffffffff' },
    ],
    'a snapshot of 2^50 bytes': [
      { snapshot: 0, field: 'extra_disk_size', value: '0x4000000000000' },
    ],
    'a VM state of 2^63 bytes': [
      { snapshot: 0, field: 'extra_vm_state_size', value: '0x7fffffffffffffff' },
    ],
    'a disk of 2^63 bytes': [{ header: 'size', value: '0x7fffffffffffffff' }],
    'a backing name of 4 GiB': [
      { header: 'backing_file_offset', value: 200 },
      { header: 'backing_file_size', value: 0xffffffff },
    ],
    'a header of 4 GiB': [{ header: 'header_length', value: 0xfffffff8 }],
    'tables at 2^56': [
      { header: 'l1_table_offset', value: '0x00fffffffffff000' },
      { header: 'refcount_table_offset', value: '0x00fffffffffff000' },
    ],
  }

  test.each(Object.keys(claims))('%s take no memory', async (claim) => {
    const bytes = patched(builtImage().bytes, claims[claim]!)
    const largest = await measureAllocations(() => survives(bytes))
    expect(largest).toBeLessThan(MEMORY_LIMIT)
  })

  test('a snapshot of a size that no disk has is refused before the disk gets it', async () => {
    const bytes = patched(builtImage().bytes, [
      { snapshot: 0, field: 'extra_disk_size', value: '0x4000000000000' },
    ])
    const device = MemoryDevice.from(bytes, { growable: true })
    await using image = await Qcow2Image.open(device, { writable: true })
    await expect(image.applySnapshot(image.snapshots[0]!)).rejects.toMatchObject({
      name: 'ImageError',
      code: 'IMAGE_TOO_LARGE',
    })
    expect(image.size).toBe(64 * 4096)
  })

  test('every L1 entry may name one L2 table: it is read once, and checked', async () => {
    const entryCount = 32 * 1024
    const built = buildImage({
      size: entryCount * 32_768,
      clusterBits: 9,
      content: { 0: { kind: 'data', bytes: filled(1, 512) } },
      refcountOrder: 6,
    })
    const image = new ImageBytes(built.bytes)
    const entry = image.get(image.l1At(0), 8)
    for (let index = 1; index < entryCount; index++) image.set(image.l1At(index), 8, entry)
    const device = MemoryDevice.from(image.bytes)
    let reads = 0
    const read = device.read.bind(device)
    device.read = (offset, target) => {
      if (offset === built.l2.get(0)) reads++
      return read(offset, target)
    }
    await using opened = await Qcow2Image.open(device)
    const bytes = new Uint8Array(512)
    for (let index = 0; index < entryCount; index += 1000) {
      await opened.read(index * 32_768, bytes)
      expect(bytes[0]).toBe(1)
    }
    expect(reads).toBe(1)
    const report = await checkImage(MemoryDevice.from(image.bytes))
    expect(report.corruptions).toBeGreaterThan(0)
    expect(report.findings.length).toBeLessThanOrEqual(10_000)
    await workOn(image.bytes)
  })

  test('65,536 snapshots open, can be read, and leave no room for another', async () => {
    const count = 65_536
    const device = new MemoryDevice(0, { growable: true })
    await createQcow2(device, { size: 65_536, refcountBits: 32 })
    const image = new ImageBytes(device.toBytes())
    const entry = Buffer.alloc(64)
    entry.writeUInt16BE(5, 12)
    entry.writeUInt32BE(16, 36)
    entry.writeBigUInt64BE(65_536n, 48)
    const table = Buffer.concat(
      Array.from({ length: count }, (_, index) => {
        const one = Buffer.from(entry)
        one.write(
          String(index + 1)
            .padStart(5, '0')
            .slice(-5),
          56,
          'latin1',
        )
        return one
      }),
    )
    const offset = Math.ceil(image.bytes.length / 65_536) * 65_536
    image.resize(offset + table.length)
    table.copy(image.bytes, offset)
    image.apply({ header: 'nb_snapshots', value: count })
    image.apply({ header: 'snapshots_offset', value: offset })
    await using opened = await Qcow2Image.open(MemoryDevice.from(image.bytes), { writable: true })
    expect(opened.snapshots.length).toBe(count)
    const view = await opened.openSnapshot(opened.snapshots[40_000]!)
    const bytes = filled(1, 65_536)
    await view.read(0, bytes)
    expect(bytes).toEqual(new Uint8Array(65_536))
    await expect(opened.createSnapshot({ name: 'one more' })).rejects.toBeInstanceOf(CowpointError)
  })
})
