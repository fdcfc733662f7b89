/**
 * Power cuts during shrink, preallocated growth and amend: each legal state of the file shows the image as before or
 * as after, with no error and no leak.
 */

import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles, crashStates } from '../support/crash-files.ts'

const PATH = '/disk.qcow2'
const SIZE = 256 * 1024

interface Geometry {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
}

const PLAIN: Geometry = { name: '4 KiB clusters', clusterSize: 4096 }
const TINY: Geometry = { name: '512 B clusters', clusterSize: 512 }
const NARROW: Geometry = { name: '2-bit refcounts', clusterSize: 1024, refcountBits: 2 }
const WIDE: Geometry = { name: '64-bit refcounts', clusterSize: 512, refcountBits: 64 }
const EXTENDED: Geometry = { name: 'extended L2', clusterSize: 16384, extendedL2: true }
const OLD: Geometry = { name: 'version 2', clusterSize: 4096, version: 2 }

async function open(files: CrashFiles, writable = true): Promise<Qcow2Image> {
  const device = await FileDevice.open(files, PATH, { writable, growable: writable })
  return Qcow2Image.open(device, { writable })
}

/** A disk with data, zero clusters and a compressed one; with a snapshot in the middle unless it is not wanted. */
async function prepare(geometry: Geometry, hasSnapshot: boolean): Promise<CrashFiles> {
  const files = new CrashFiles()
  const device = await FileDevice.open(files, PATH, { create: 'new', growable: true })
  // The name leads nowhere: what is unallocated reads as zeroes here, but zero clusters must stay data.
  await createQcow2(device, { size: SIZE, ...geometry, backing: { name: 'gone', format: 'raw' } })
  await device.close()
  const image = await open(files)
  await image.write(0, new Uint8Array(20_000).fill(1))
  await image.write(100_000, new Uint8Array(30_000).fill(2))
  await image.writeZeroes(32_768, 16_384)
  if (hasSnapshot) await image.createSnapshot({ name: 'first' })
  await image.write(8_000, new Uint8Array(9_000).fill(3))
  const { clusterSize } = image.geometry
  await image.writeCompressed(2 * clusterSize, new Uint8Array(clusterSize).fill(4))
  await image.writeZeroes(98_304, 16_384)
  await image.close()
  return files
}

async function views(image: Qcow2Image): Promise<string> {
  const all: string[] = []
  for (const device of [
    image,
    ...(await Promise.all(image.snapshots.map((one) => image.openSnapshot(one)))),
  ]) {
    const bytes = new Uint8Array(device.size)
    await device.read(0, bytes)
    all.push(Buffer.from(bytes).toString('base64'))
  }
  const { version, refcountOrder, size, compatibleFeatures } = image.header
  return JSON.stringify([version, refcountOrder, size, String(compatibleFeatures), all])
}

interface Verb {
  readonly title: string
  readonly on: readonly Geometry[]
  readonly hasSnapshot?: boolean
  readonly run: (image: Qcow2Image) => Promise<unknown>
}

const VERBS: readonly Verb[] = [
  {
    title: 'shrinking',
    on: [PLAIN, TINY, NARROW, EXTENDED],
    run: (image) => image.resizeDisk(105_472, { shrink: true }),
  },
  {
    title: 'shrinking without a snapshot',
    on: [OLD, WIDE],
    hasSnapshot: false,
    run: (image) => image.resizeDisk(9_216, { shrink: true }),
  },
  {
    title: 'counting in 64 bits',
    on: [PLAIN, TINY, NARROW, EXTENDED],
    run: (image) => image.amend({ refcountBits: 64 }),
  },
  {
    title: 'counting in 2 bits',
    on: [PLAIN, TINY, WIDE, EXTENDED],
    run: (image) => image.amend({ refcountBits: 2 }),
  },
  {
    title: 'becoming version 2',
    on: [PLAIN, TINY],
    run: (image) => image.amend({ version: 2 }),
  },
  { title: 'becoming version 3', on: [OLD], run: (image) => image.amend({ version: 3 }) },
  {
    title: 'lazy refcounts',
    on: [PLAIN],
    run: (image) => image.amend({ lazyRefcounts: true }),
  },
]

describe.each(VERBS)('$title', ({ on, hasSnapshot = true, run }) => {
  test.each(on)('leaves the old or the new image in every power cut: $name', async (geometry) => {
    const files = await prepare(geometry, hasSnapshot)
    const image = await open(files)
    const start = files.startRecording()
    const before = await views(image)
    await run(image)
    const after = await views(image)
    expect(after).not.toBe(before)
    let found = ''
    for (const state of crashStates(start, files.log)) {
      const crashed = new CrashFiles(state.files)
      const report = await checkImage(await FileDevice.open(crashed, PATH))
      expect([report.corruptions, report.checkErrors, report.leaks], state.key).toEqual([0, 0, 0])
      const opened = await open(crashed, false)
      found = await views(opened)
      await opened.close()
      expect(found === before || found === after, state.key).toBe(true)
    }
    expect(found).toBe(after)
  })
})

test('a growth with preallocation shows the old or the new size in every power cut', async () => {
  const files = await prepare(TINY, true)
  const image = await open(files)
  const start = files.startRecording()
  await image.resizeDisk(SIZE + 20_480, { preallocation: 'metadata' })
  for (const state of crashStates(start, files.log)) {
    const crashed = new CrashFiles(state.files)
    const report = await checkImage(await FileDevice.open(crashed, PATH))
    expect([report.corruptions, report.checkErrors], state.key).toEqual([0, 0])
    const opened = await open(crashed, false)
    expect([SIZE, SIZE + 20_480], state.key).toContain(opened.size)
    const tail = new Uint8Array(opened.size - SIZE)
    await opened.read(SIZE, tail)
    expect(
      tail.every((byte) => byte === 0),
      state.key,
    ).toBe(true)
    await opened.close()
  }
})
