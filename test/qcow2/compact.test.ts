/** Compacting: shorter files, the same views, exactly as planned; limits, zeroes, what cannot move, and being stopped. */

import { describe, expect, test } from 'vitest'
import type { CreateOptions } from '../../src/qcow2/create.ts'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { viewDigests, wornImage } from '../support/worn-image.ts'

const SHAPES: Readonly<Record<string, Omit<CreateOptions, 'size'>>> = {
  '512 B clusters': { clusterSize: 512 },
  '512 B clusters, 64-bit refcounts': { clusterSize: 512, refcountBits: 64 },
  '512 B clusters, 1-bit refcounts': { clusterSize: 512, refcountBits: 1 },
  '4 KiB clusters, 8-bit refcounts': { clusterSize: 4096, refcountBits: 8 },
  '4 KiB clusters, zstd': { clusterSize: 4096, compressionType: 'zstd' },
  '4 KiB clusters, lazy refcounts': { clusterSize: 4096, lazyRefcounts: true },
  'version 2': { clusterSize: 4096, version: 2 },
  'extended L2': { clusterSize: 16384, extendedL2: true },
}

const growing = () => new MemoryDevice(0, { growable: true })

async function soundness(file: MemoryDevice): Promise<number[]> {
  const { corruptions, checkErrors, leaks } = await checkImage(file)
  return [corruptions, checkErrors, leaks]
}

describe.each(Object.entries(SHAPES))('an image of %s', (_, options) => {
  test.each([1, 2, 3, 4, 5, 6])(
    'is as short as planned and the same in every view, worn by seed %i',
    async (seed) => {
      const file = growing()
      const compresses = seed % 2 === 0
      const image = await wornImage(file, options, {
        seed,
        compresses,
        snapshots: options.refcountBits !== 1 && seed % 3 > 0,
      })
      const before = await viewDigests(image)
      const oldSize = file.size
      const bytes = file.toBytes()
      const plan = await image.planCompaction()
      expect(Buffer.compare(file.toBytes(), bytes)).toBe(0)
      const done = await image.compact()
      expect(done).toEqual(plan)
      expect(file.size).toBe(plan.fileSize)
      expect(file.size).toBeLessThanOrEqual(oldSize)
      // Pieces of compressed data do not fill every gap; everything else does.
      if (!compresses) expect(done.freeSize).toBe(0)
      expect(await viewDigests(image)).toEqual(before)
      expect(await soundness(file)).toEqual([0, 0, 0])
      await image.write(0, new Uint8Array(30_000).fill(7))
      await image.close()
      expect(await soundness(file.clone())).toEqual([0, 0, 0])
    },
  )
})

/** 2 MiB of data, of which the first three quarters are discarded. */
async function halfEmpty(options: Omit<CreateOptions, 'size'> = {}): Promise<MemoryDevice> {
  const file = growing()
  await createQcow2(file, { size: 4 << 20, clusterSize: 4096, ...options })
  const image = await Qcow2Image.open(file, { writable: true })
  await image.write(0, new Uint8Array(2 << 20).fill(1))
  await image.flush()
  await image.discard(0, 3 << 19)
  await image.close()
  return file.clone({ growable: true })
}

describe('compacting', () => {
  test('a full file changes nothing', async () => {
    const file = await halfEmpty()
    const image = await Qcow2Image.open(file, { writable: true })
    await image.compact()
    const again = await image.compact()
    expect(again).toMatchObject({ movedSize: 0, freeSize: 0 })
    expect(again.fileSize).toBe(again.oldFileSize)
  })

  test('in portions that are limited comes to the same as in one go', async () => {
    const whole = await Qcow2Image.open(await halfEmpty(), {
      writable: true,
    })
    const { fileSize } = await whole.compact()
    const file = await halfEmpty()
    const image = await Qcow2Image.open(file, { writable: true })
    let last = file.size
    for (let portion = 0; portion < 40 && last > fileSize; portion++) {
      const { movedSize, fileSize: size } = await image.compact({ maxMove: 64 << 10 })
      expect(movedSize).toBeLessThanOrEqual(64 << 10)
      expect(size).toBeLessThan(last)
      expect(await soundness(file)).toEqual([0, 0, 0])
      last = size
    }
    expect(last).toBe(fileSize)
  })

  test.each([
    ['version 3', {}, true],
    ['version 2 without backing', { version: 2 as const }, true],
    [
      'version 2 with backing',
      { version: 2 as const, backing: { name: 'base', format: 'raw' } },
      false,
    ],
    ['extended L2', { clusterSize: 16384, extendedL2: true }, true],
  ])('gives zeroes back in %s, where they can still read as zeroes', async (_, options, gives) => {
    const file = growing()
    await createQcow2(file, { size: 4 << 20, clusterSize: 4096, ...options } as CreateOptions)
    const image = await Qcow2Image.open(file, { writable: true })
    image.attachBacking(new MemoryDevice(4 << 20))
    await image.write(0, new Uint8Array(1 << 20))
    await image.write(1 << 20, new Uint8Array(1 << 20).fill(1))
    await image.createSnapshot({ name: 'a' })
    await image.write(512 << 10, new Uint8Array(1 << 19).fill(2))
    await image.flush()
    const before = await viewDigests(image)
    expect((await image.planCompaction()).zeroedSize).toBe(0)
    const { zeroedSize } = await image.compact({ zero: true })
    expect(zeroedSize).toBe(gives ? 1 << 20 : 0)
    expect(await viewDigests(image)).toEqual(before)
    expect(await soundness(file)).toEqual([0, 0, 0])
  })

  test('a preallocated zero cluster gives its space back with `zero`', async () => {
    const file = growing()
    await createQcow2(file, { size: 4 << 20, clusterSize: 4096 })
    const image = await Qcow2Image.open(file, { writable: true })
    await image.write(0, new Uint8Array(1 << 20).fill(1))
    await image.writeZeroes(0, 1 << 20)
    await image.flush()
    expect((await image.compact({ zero: true })).zeroedSize).toBe(1 << 20)
    expect(file.size).toBeLessThan(64 << 10)
    expect(await soundness(file)).toEqual([0, 0, 0])
  })

  test('cuts the file off where the host cannot punch holes', async () => {
    const file = await halfEmpty()
    Object.assign(file, { can: { ...file.can, discard: false } })
    const image = await Qcow2Image.open(file, { writable: true })
    expect((await image.compact()).fileSize).toBeLessThan(600 << 10)
    expect(file.size).toBeLessThan(600 << 10)
    expect(await soundness(file)).toEqual([0, 0, 0])
  })

  test('needs a file that can be cut off', async () => {
    const file = await halfEmpty()
    Object.assign(file, { can: { ...file.can, resize: false } })
    const image = await Qcow2Image.open(file, { writable: true })
    await expect(image.compact()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  })

  test('leaves leaked clusters where they are', async () => {
    const file = await halfEmpty()
    const at = file.size
    await file.write(at + 8 * 4096 - 1, new Uint8Array([1]))
    await countOnce(file, at / 4096 + 7)
    expect(await soundness(file)).toEqual([0, 0, 1])
    const image = await Qcow2Image.open(file, { writable: true })
    const { pinnedSize, fileSize } = await image.compact()
    expect([pinnedSize, fileSize]).toEqual([at + 8 * 4096, at + 8 * 4096])
    expect(await soundness(file)).toEqual([0, 0, 1])
  })

  test('refuses a damaged image and leaves it alone', async () => {
    const file = await halfEmpty()
    await countOnce(file, 0, 0)
    const before = file.toBytes()
    const image = await Qcow2Image.open(file, { writable: true })
    await expect(image.compact()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    expect(Buffer.compare(file.toBytes(), before)).toBe(0)
  })

  test('refuses to look for zeroes in encrypted data', async () => {
    const file = await halfEmpty()
    await file.write(32, new Uint8Array([0, 0, 0, 1]))
    const image = await Qcow2Image.open(file)
    const found = image.planCompaction({ zero: true })
    await expect(found).rejects.toMatchObject({ code: 'ENCRYPTED' })
  })

  test('can be stopped anywhere, and goes on when it is done again', async () => {
    const reference = await Qcow2Image.open(await halfEmpty(), {
      writable: true,
    })
    const { fileSize } = await reference.compact()
    let stops = 0
    for (let writes = 1; writes < 200; writes++) {
      const file = await halfEmpty()
      const image = await Qcow2Image.open(file, { writable: true })
      const before = await viewDigests(image)
      const controller = new AbortController()
      abortAfter(file, writes, controller)
      const ended = await image.compact({ signal: controller.signal }).then(
        () => 'done',
        (error) => (error === controller.signal.reason ? 'stopped' : error),
      )
      expect(['done', 'stopped']).toContain(ended)
      if (ended === 'stopped') stops++
      expect(await viewDigests(image)).toEqual(before)
      expect(await soundness(file)).toEqual([0, 0, 0])
      expect((await image.compact()).fileSize).toBe(fileSize)
      expect(await viewDigests(image)).toEqual(before)
      await image.close()
      if (ended === 'done') break
    }
    expect(stops).toBeGreaterThan(3)
  })

  test('reports how far it is', async () => {
    const image = await Qcow2Image.open(await halfEmpty(), { writable: true })
    const seen: number[] = []
    const { movedSize } = await image.compact({ onProgress: ({ done }) => seen.push(done) })
    expect(movedSize).toBeGreaterThan(0)
    expect(seen.at(-1)).toBe(movedSize)
  })
})

/** Sets a 16-bit refcount in the first refcount block. */
async function countOnce(file: MemoryDevice, cluster: number, count = 1): Promise<void> {
  const field = new Uint8Array(8)
  await file.read(48, field)
  await file.read(Number(new DataView(field.buffer).getBigUint64(0)), field)
  const block = Number(new DataView(field.buffer).getBigUint64(0))
  await file.write(block + cluster * 2, new Uint8Array([0, count]))
}

/** Aborts when `file` was written to so often. */
function abortAfter(file: MemoryDevice, count: number, controller: AbortController): void {
  const write = file.write.bind(file)
  let left = count
  file.write = (offset, source) => {
    left--
    if (left === 0) controller.abort(new Error('enough'))
    return write(offset, source)
  }
}
