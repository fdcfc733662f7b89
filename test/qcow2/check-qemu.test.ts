/** The check against `qemu-img check` on images that are damaged at random: every count, every line, in order. */

import { closeSync, copyFileSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { buildImage, type ImageSpec } from '../support/image-builder.ts'
import { imageManifest, unpackImage, wholeImage } from '../support/image-matrix.ts'
import { ImageBytes, tableOffset } from '../support/poke.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { suiteFolder, tempFolder } from '../support/temp.ts'
import { ourOutcome, qemuOutcome } from './check-oracle.ts'

/** A small repeatable source of numbers below `limit`. */
function numbers(seed: number): (limit: number) => number {
  let state = seed >>> 0
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

type Pick = (limit: number) => number

/** A table entry that may be right, nearly right, or anything. */
function entry(image: ImageBytes, pick: Pick): bigint {
  const { clusterSize } = image
  const clusterCount = Math.ceil(image.bytes.length / clusterSize) + 3
  const base = BigInt(pick(clusterCount) * clusterSize) | (BigInt(pick(2)) << 63n)
  switch (pick(8)) {
    case 0:
      return base | 1n
    case 1:
      return base | BigInt(pick(512))
    case 2:
      return base | BigInt(512 * pick(clusterSize / 512))
    case 3:
      return (1n << 62n) | base | BigInt(pick(clusterSize)) | (BigInt(pick(256)) << 54n)
    case 4:
      return (BigInt(pick(2 ** 24)) << 32n) | BigInt(pick(2 ** 32))
    case 5:
      return base | (1n << BigInt(pick(64)))
    default:
      return base
  }
}

/** Where a table entry lies, and how wide it is. */
function place(image: ImageBytes, pick: Pick): readonly [number, 1 | 8] {
  const anywhere = [8 * pick(Math.floor(image.bytes.length / 8)), 8] as const
  const l1 = image.header('l1_table_offset') + 8 * pick(Math.max(1, image.header('l1_size')))
  switch (pick(6)) {
    case 0:
      return [l1, 8]
    case 1:
    case 2: {
      const table = tableOffset(image.get(l1, 8))
      const inFile = table !== 0 && table + image.clusterSize <= image.bytes.length
      return inFile ? [table + 8 * pick(Math.min(image.clusterSize / 8, 48)), 8] : anywhere
    }
    case 3:
      return [image.header('refcount_table_offset') + 8 * pick(2), 8]
    case 4: {
      const block = tableOffset(image.get(image.header('refcount_table_offset'), 8))
      return [block + pick(64), 1]
    }
    default:
      return anywhere
  }
}

function damage(path: string, pick: Pick): void {
  const image = ImageBytes.load(path)
  for (let times = 1 + pick(4); times > 0; times--) {
    const [at, width] = place(image, pick)
    // The header is left alone: what it may not say is refused before anything is checked.
    if (at < 512 || at + width > image.bytes.length) continue
    image.set(at, width, width === 1 ? pick(256) : entry(image, pick))
  }
  const { length } = image.bytes
  if (pick(8) === 0) image.resize(Math.max(512, length - pick(3 * image.clusterSize)))
  if (pick(8) === 0) image.resize(length + pick(2 * image.clusterSize))
  image.save(path)
}

const NAMES = imageManifest()
  .whole.filter((image) => !image.name.startsWith('chain-') && image.file === 'disk.qcow2')
  .filter((image) => image.secret === undefined)
  .map((image) => image.name)

describeWithQemu('a damaged image is judged as by qemu-img, line by line', () => {
  it.each(NAMES)('%s', async (name) => {
    const folder = tempFolder()
    const path = unpackImage(wholeImage(name), folder)
    const whole = join(folder, 'whole')
    copyFileSync(path, whole)
    const pick = numbers(NAMES.indexOf(name) + 1)
    for (let round = 0; round < 3; round++) {
      copyFileSync(whole, path)
      damage(path, pick)
      expect(await ourOutcome(path), `round ${round}`).toEqual(await qemuOutcome(path))
    }
  })
})

describeWithQemu('an encrypted image is judged as by qemu-img', () => {
  it('without its key', async () => {
    const image = wholeImage('luks')
    const path = unpackImage(image, tempFolder())
    expect(await ourOutcome(path)).toEqual(await qemuOutcome(path, image.secret))
    const bytes = ImageBytes.load(path)
    for (const cluster of [0, 1, 2, 3]) bytes.setRefcount(cluster, 5)
    bytes.save(path)
    expect(await ourOutcome(path)).toEqual(await qemuOutcome(path, image.secret))
  })
})

/** Images whose L2 tables are named more than once, which the engine reads once. */
const SHARED: readonly (readonly [string, ImageSpec])[] = [0, 1, 2, 3, 4, 6].map((order) => [
  `refcounts of ${2 ** order} bits`,
  {
    size: 4 * 64 * 1024,
    clusterBits: 9,
    refcountOrder: order,
    content: { 0: { kind: 'data', bytes: Buffer.from('a') }, 70: { kind: 'zero-allocated' } },
  },
])

describeWithQemu('a table named by several L1 entries is counted as often', () => {
  it.each(SHARED)('%s', async (_title, spec) => {
    const built = buildImage(spec)
    const path = join(tempFolder(), 'disk.qcow2')
    const image = new ImageBytes(built.bytes)
    for (const index of [2, 3, 4]) image.set(image.l1At(index), 8, image.get(image.l1At(0), 8))
    image.set(image.l1At(5), 8, image.get(image.l1At(1), 8) | 0x200n)
    image.set(image.l1At(6), 8, image.get(image.l1At(1), 8) | 0x200n)
    image.set(image.l2At(1), 8, '0x80000000000003fe')
    image.set(image.l2At(2), 8, '0x8000000000000600')
    image.save(path)
    expect(await ourOutcome(path)).toEqual(await qemuOutcome(path))
  })
})

describeWithQemu('a real disk in use is judged as by qemu-img', () => {
  const folder = suiteFolder()

  it('with many snapshots, compressed clusters and a leak', async () => {
    const path = join(folder, 'disk.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '64M'])
    for (let round = 0; round < 6; round++) {
      await qemuIoOk(path, [
        `write -P ${round + 1} ${round * 3}M ${round + 1}M`,
        `write -c -P 9 ${40 * 1024 + round * 4}k 4k`,
        `discard ${round * 2}M 64k`,
        `write -z ${30 + round}M 128k`,
      ])
      await qemuImgOk(['snapshot', '-c', `s${round}`, path])
    }
    await qemuImgOk(['snapshot', '-d', 's2', path])
    const outcome = await ourOutcome(path)
    expect(outcome).toEqual(await qemuOutcome(path))
    expect(outcome).toMatchObject({ end: 'done', counts: { corruptions: 0, leaks: 0 }, lines: [] })
    const image = ImageBytes.load(path)
    image.setRefcount(Math.floor(image.bytes.length / 4096) - 1, 3)
    image.save(path)
    expect(readFileSync(path).length).toBe(image.bytes.length)
    expect(await ourOutcome(path)).toEqual(await qemuOutcome(path))
  })

  it('with clusters that 260 snapshots share, and a refcount that is right in its lower byte only', async () => {
    const path = join(folder, 'shared.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '1M'])
    await qemuIoOk(path, ['write -P 1 0 16k'])
    const disk = await Qcow2Image.open(
      await FileDevice.open(nodeFiles, path, { writable: true, growable: true }),
      {
        writable: true,
      },
    )
    for (let round = 0; round < 260; round++) await disk.createSnapshot({ name: `s${round}` })
    await disk.close()
    const outcome = await ourOutcome(path)
    expect(outcome).toEqual(await qemuOutcome(path))
    expect(outcome).toMatchObject({ end: 'done', counts: { corruptions: 0, leaks: 0 } })
    const image = ImageBytes.load(path)
    const shared = Number(image.get(image.l2At(0), 8) & 0xfffffffffffe00n) / 4096
    image.setRefcount(shared, 261 - 256)
    image.save(path)
    const broken = await ourOutcome(path)
    expect(broken).toEqual(await qemuOutcome(path))
    expect(broken).toMatchObject({ counts: { corruptions: 1 } })
  })

  it('with clusters in a row to beyond 4 GiB, where the upper half of an entry must change', async () => {
    const path = join(folder, 'long.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, '5G'])
    const sound = await ourOutcome(path)
    expect(sound).toEqual(await qemuOutcome(path))
    expect(sound).toMatchObject({ end: 'done', counts: { corruptions: 0, leaks: 0 } })
    replaceEntry(path, 0x8000000100000000n, 0x8000000000000000n)
    const broken = await ourOutcome(path)
    expect(broken).toEqual(await qemuOutcome(path))
    expect(broken).toMatchObject({ end: 'done', counts: { leaks: 1 } })
  }, 60_000)
})

/** Changes the one L2 entry that is `wanted`, in a file that is too long to read. */
function replaceEntry(path: string, wanted: bigint, value: bigint): void {
  const file = openSync(path, 'r+')
  const read = (at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length)
    readSync(file, bytes, 0, length, at)
    return bytes
  }
  const words = Buffer.alloc(16)
  words.writeBigUInt64BE(wanted)
  words.writeBigUInt64BE(value, 8)
  const l1 = read(Number(read(40, 8).readBigUInt64BE()), 10 * 8)
  let count = 0
  for (let at = 0; at < l1.length; at += 8) {
    const table = Number(l1.readBigUInt64BE(at) & 0xff_ffff_ffff_fe00n)
    const found = read(table, 65536).indexOf(words.subarray(0, 8))
    if (found < 0) continue
    writeSync(file, words, 8, 8, table + found)
    count++
  }
  closeSync(file)
  if (count !== 1) throw new Error(`${count} entries found`)
}
