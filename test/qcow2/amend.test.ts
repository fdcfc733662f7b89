/** Other sizes and other options of an open image, in any order, between writes and snapshots; checked by a model. */

import { describe, expect, test } from 'vitest'
import type { BlockDevice } from '../../src/block/index.ts'
import { checkImage, createQcow2, Qcow2Image, type SnapshotRecord } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

const START = 96 * 1024

interface Setting {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
  readonly backed?: boolean
}

const SETTINGS: readonly Setting[] = [
  { name: '512 B clusters', clusterSize: 512 },
  { name: '512 B clusters over a base', clusterSize: 512, backed: true },
  { name: '1 KiB clusters, 64-bit refcounts', clusterSize: 1024, refcountBits: 64 },
  { name: '4 KiB clusters over a base, version 2', clusterSize: 4096, version: 2, backed: true },
  { name: 'extended L2 over a base', clusterSize: 16384, extendedL2: true, backed: true },
]

/** A generator of whole numbers below a limit (xorshift). */
function randomOf(seed: number): (limit: number) => number {
  let state = seed * 0x9e3779b9 + 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

async function contentOf(device: Pick<BlockDevice, 'size' | 'read'>): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  return bytes
}

/** An image with what it and its snapshots must read as. */
class Model {
  disk: Uint8Array
  readonly saved = new Map<string, Uint8Array>()
  readonly image: Qcow2Image
  readonly file: MemoryDevice
  readonly #random: (limit: number) => number

  private constructor(image: Qcow2Image, file: MemoryDevice, disk: Uint8Array, seed: number) {
    this.image = image
    this.file = file
    this.disk = disk
    this.#random = randomOf(seed)
  }

  static async start(setting: Setting, seed: number): Promise<Model> {
    const { name: _, backed, ...options } = setting
    const file = new MemoryDevice(0, { growable: true })
    const disk = new Uint8Array(START)
    await createQcow2(file, {
      size: START,
      ...options,
      ...(backed ? { backing: { name: 'base', format: 'raw' } } : {}),
    })
    let backing: MemoryDevice | undefined
    if (backed) {
      backing = new MemoryDevice()
      await backing.resize(2 * START)
      await backing.write(0, new Uint8Array(2 * START).fill(0xbb))
      disk.fill(0xbb)
    }
    const image = await Qcow2Image.open(file, { writable: true, ...(backing ? { backing } : {}) })
    return new Model(image, file, disk, seed)
  }

  async step(): Promise<void> {
    const pick = this.#random
    const { image } = this
    const at = pick(Math.max(1, this.disk.length - 1))
    const length = Math.min(this.disk.length - at, 1 + pick(20_000))
    switch (pick(8)) {
      case 0:
      case 1: {
        const byte = 1 + pick(250)
        await image.write(at, new Uint8Array(length).fill(byte))
        this.disk.fill(byte, at, at + length)
        return
      }
      case 2:
        await image.writeZeroes(at, length, { mayDiscard: pick(2) === 0 })
        this.disk.fill(0, at, at + length)
        return
      case 3:
        return this.#snapshot()
      case 4:
      case 5:
        return this.#resize()
      case 6:
        return this.#amend({ refcountBits: 2 ** (2 + pick(5)) })
      default:
        return this.#amend({ version: pick(2) === 0 ? 2 : 3 })
    }
  }

  async #snapshot(): Promise<void> {
    const first = this.image.snapshots[0]
    if (first !== undefined && (this.image.snapshots.length > 3 || this.#random(3) === 0)) {
      await this.image.deleteSnapshot(first)
      this.saved.delete(first.id)
      return
    }
    const record = await this.image.createSnapshot({ name: 'one' })
    this.saved.set(record.id, this.disk.slice())
  }

  async #resize(): Promise<void> {
    const size = 512 * (1 + this.#random((2 * START) / 512))
    const mode = (['off', 'metadata', 'falloc', 'full'] as const)[this.#random(4)] ?? 'off'
    try {
      await this.image.resizeDisk(size, {
        shrink: true,
        ...(size > this.disk.length ? { preallocation: mode } : {}),
      })
    } catch (error) {
      expect(error).toMatchObject({ code: 'RESIZE_SNAPSHOTS' })
      return
    }
    const next = new Uint8Array(size)
    next.set(this.disk.subarray(0, size))
    this.disk = next
  }

  async #amend(change: { refcountBits?: number; version?: 2 | 3 }): Promise<void> {
    try {
      await this.image.amend(change)
    } catch (error) {
      expect(['DOWNGRADE', 'VERSION_2', 'REFCOUNT_WIDTH']).toContain(
        (error as { code: string }).code,
      )
      return
    }
    expect(this.image.header.version).toBe(change.version ?? this.image.header.version)
    if (change.refcountBits) expect(this.image.geometry.refcountBits).toBe(change.refcountBits)
  }

  async check(): Promise<void> {
    const same = async (device: Pick<BlockDevice, 'size' | 'read'>, wanted: Uint8Array) =>
      expect(Buffer.compare(await contentOf(device), wanted)).toBe(0)
    await same(this.image, this.disk)
    for (const record of this.image.snapshots) {
      await same(await this.image.openSnapshot(record), this.saved.get(record.id) as Uint8Array)
    }
    await this.image.flush()
    await this.image.flush()
    const report = await checkImage(this.file)
    expect([report.corruptions, report.checkErrors, report.leaks, report.findings]).toEqual([
      0,
      0,
      0,
      [],
    ])
  }
}

describe('an image that is resized and amended between writes and snapshots stays what the model says', () => {
  test.each(SETTINGS)('$name', async (setting) => {
    for (let seed = 1; seed <= 6; seed++) {
      const model = await Model.start(setting, seed)
      for (let step = 0; step < 60; step++) {
        await model.step()
        if (step % 6 === 5) await model.check()
      }
      await model.image.close()
    }
  })
})

async function small(
  options: Partial<Setting> = {},
): Promise<{ image: Qcow2Image; file: MemoryDevice }> {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: START, clusterSize: 512, ...options })
  return { file, image: await Qcow2Image.open(file, { writable: true }) }
}

describe('shrinking', () => {
  test('is refused unless it is asked for by name', async () => {
    const { image } = await small()
    await expect(image.resize(512)).rejects.toMatchObject({ code: 'SHRINK_NOT_ALLOWED' })
    await expect(image.resizeDisk(512)).rejects.toMatchObject({ code: 'SHRINK_NOT_ALLOWED' })
    await expect(image.amend({ size: 512 })).rejects.toMatchObject({ code: 'SHRINK_NOT_ALLOWED' })
    expect(image.size).toBe(START)
  })

  test('makes the file shorter by what it frees', async () => {
    const { image, file } = await small()
    await image.write(0, new Uint8Array(START).fill(7))
    await image.flush()
    const before = file.size
    await image.resizeDisk(START / 4, { shrink: true })
    expect(file.size).toBeLessThan(before - START / 2)
  })

  test('leaves nothing in the file of the rest of the last cluster', async () => {
    const { image, file } = await small({ clusterSize: 4096 })
    await image.write(0, new Uint8Array(8192).fill(7))
    await image.resizeDisk(4608, { shrink: true })
    const bytes = await contentOf(file)
    expect(bytes.reduce((count, byte) => count + (byte === 7 ? 1 : 0), 0)).toBeLessThan(4700)
  })

  test('is refused for a version 2 image with snapshots', async () => {
    const { image } = await small({ version: 2 })
    await image.createSnapshot({ name: 'one' })
    await expect(image.resizeDisk(512, { shrink: true })).rejects.toMatchObject({
      code: 'RESIZE_SNAPSHOTS',
    })
  })
})

describe('amend', () => {
  test('becoming version 2 keeps what a snapshot has where the disk has zeroes in the same place', async () => {
    const { image } = await small()
    await image.write(0, new Uint8Array(4096).fill(7))
    const record = await image.createSnapshot({ name: 'one' })
    // The zero cluster keeps the place that the snapshot's data has.
    await image.writeZeroes(0, 4096)
    await image.amend({ version: 2 })
    const view = await image.openSnapshot(image.snapshots[0] as SnapshotRecord)
    expect(record.id).toBe(image.snapshots[0]?.id)
    expect((await contentOf(view)).subarray(0, 4096).every((byte) => byte === 7)).toBe(true)
    expect((await contentOf(image)).every((byte) => byte === 0)).toBe(true)
  })

  test('becoming version 2 makes clusters of the zeroes that hide a base, and only of those', async () => {
    const size = 1024 * 1024
    const file = new MemoryDevice(0, { growable: true })
    await createQcow2(file, { size, clusterSize: 4096, backing: { name: 'base', format: 'raw' } })
    const backing = MemoryDevice.from(new Uint8Array(size).fill(9))
    const image = await Qcow2Image.open(file, { writable: true, backing })
    await image.writeZeroes(0, size / 2)
    await image.amend({ version: 2 })
    const bytes = await contentOf(image)
    expect(bytes.subarray(0, size / 2).every((byte) => byte === 0)).toBe(true)
    expect(bytes.subarray(size / 2).every((byte) => byte === 9)).toBe(true)
    expect(await image.map(0, size)).toMatchObject({ kind: 'normal', length: size / 2 })
    const report = await checkImage(file)
    expect([report.corruptions, report.leaks]).toEqual([0, 0])
  })

  test('refuses all of a list of changes where one of them cannot be', async () => {
    const { image } = await small()
    const before = JSON.stringify([
      image.header.refcountOrder,
      String(image.header.compatibleFeatures),
    ])
    const changes = { lazyRefcounts: true, refcountBits: 8, version: 2 } as const
    await expect(image.amend(changes)).rejects.toMatchObject({ code: 'VERSION_2' })
    await expect(image.amend({ refcountBits: 12 })).rejects.toMatchObject({
      code: 'INVALID_OPTION_VALUE',
    })
    await expect(image.amend({ dataFile: 'x' })).rejects.toMatchObject({ code: 'NO_DATA_FILE' })
    expect(
      JSON.stringify([image.header.refcountOrder, String(image.header.compatibleFeatures)]),
    ).toBe(before)
  })

  test('stays version 2 where the refcount width that is asked for with version 3 does not do', async () => {
    const file = new MemoryDevice(0, { growable: true })
    await createQcow2(file, { size: START, clusterSize: 4096, version: 2 })
    await using image = await Qcow2Image.open(file, { writable: true })
    await image.write(0, new Uint8Array(4096).fill(1))
    await image.createSnapshot({ name: 'first' })
    await expect(image.amend({ version: 3, refcountBits: 1 })).rejects.toMatchObject({
      code: 'REFCOUNT_WIDTH',
    })
    expect(image.header.version).toBe(2)
    await image.amend({ version: 3, refcountBits: 2 })
    expect([image.header.version, image.geometry.refcountBits]).toEqual([3, 2])
  })

  test('refuses a refcount width in which a cluster cannot be counted', async () => {
    const { image } = await small()
    await image.write(0, new Uint8Array(4096).fill(7))
    for (let count = 0; count < 4; count++) await image.createSnapshot({ name: 'one' })
    await expect(image.amend({ refcountBits: 2 })).rejects.toMatchObject({ code: 'REFCOUNT_WIDTH' })
    await image.amend({ refcountBits: 4 })
    expect(image.geometry.refcountBits).toBe(4)
  })
})
