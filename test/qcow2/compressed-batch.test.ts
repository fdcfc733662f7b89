import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { IoError } from '../../src/base/errors.ts'
import { disableNative } from '../../src/native/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { expectBytes, pattern } from '../support/device-contract.ts'
import { HookedDevice } from './image-devices.ts'

type Method = 'zlib' | 'zstd'

/** With more than one cluster in this many bytes a read is done by several threads where the codec says so. */
const KINDS = [
  { method: 'zlib', clusterSize: 65536, native: true },
  { method: 'zlib', clusterSize: 65536, native: false },
  { method: 'zlib', clusterSize: 4096, native: true },
  { method: 'zlib', clusterSize: 524288, native: true },
  { method: 'zstd', clusterSize: 65536, native: true },
  { method: 'zstd', clusterSize: 65536, native: false },
  { method: 'zstd', clusterSize: 524288, native: true },
] as const

const COUNT = 40

afterEach(() => disableNative(false))

/** Most clusters pack to about a half; some do not, are zero, or hold nothing. */
function content(index: number, clusterSize: number): Uint8Array | 'zero' | undefined {
  if (index % 13 === 5) return undefined
  if (index % 13 === 8) return 'zero'
  const bytes = pattern(clusterSize, index + 1)
  if (index % 13 !== 11) bytes.fill(index, clusterSize / 2)
  return bytes
}

interface Made {
  /** The image file. */
  readonly bytes: Uint8Array
  readonly disk: Uint8Array
  /** Where the packed bytes of clusters lie, by cluster. */
  readonly places: ReadonlyMap<number, number>
}

async function make(compressionType: Method, clusterSize: number): Promise<Made> {
  const file = new MemoryDevice(0, { growable: true })
  const disk = new Uint8Array(COUNT * clusterSize)
  await createQcow2(file, { size: disk.length, compressionType, clusterSize })
  const image = await Qcow2Image.open(file, { writable: true })
  const places = new Map<number, number>()
  // Eights of neighbours lie side by side, the last of them first.
  for (let step = 0; step < COUNT; step++) {
    const index = COUNT - 8 - Math.floor(step / 8) * 8 + (step % 8)
    const bytes = content(index, clusterSize)
    const offset = index * clusterSize
    if (bytes === 'zero') await image.writeZeroes(offset, clusterSize)
    if (typeof bytes !== 'object') continue
    disk.set(bytes, offset)
    await image.writeCompressed(offset, bytes)
    const mapping = await image.map(offset, clusterSize)
    if (mapping.kind === 'compressed') places.set(index, mapping.hostOffset)
  }
  await image.flush()
  const bytes = new Uint8Array(file.size)
  await file.read(0, bytes)
  await image.close()
  return { bytes, disk, places }
}

const damaged = { name: 'ImageError', code: 'COMPRESSED_DATA' }

describe.each(KINDS)(
  'reads of many clusters of $clusterSize bytes by $method, native calls: $native',
  ({ method, clusterSize, native }) => {
    let made: Made
    beforeAll(async () => {
      made = await make(method, clusterSize)
    })

    const fileOf = (change: (bytes: Uint8Array) => void = () => {}): MemoryDevice => {
      const bytes = made.bytes.slice()
      change(bytes)
      return MemoryDevice.from(bytes)
    }

    async function open(file: MemoryDevice | HookedDevice = fileOf()): Promise<Qcow2Image> {
      disableNative(!native)
      return Qcow2Image.open(file)
    }

    it('return the content, whole and in parts', async () => {
      await using image = await open()
      const { disk } = made
      expect(made.places.size).toBeGreaterThan(COUNT / 2)
      const ranges = [
        [0, disk.length],
        [1, disk.length - 2],
        [clusterSize / 2, clusterSize],
        [clusterSize + 512, 3 * clusterSize - 100],
        [3 * clusterSize, 20 * clusterSize],
        [clusterSize - 1, 2],
      ] as const
      for (const [offset, length] of ranges) {
        const target = new Uint8Array(length).fill(0xee)
        await image.read(offset, target)
        expectBytes(target, disk.subarray(offset, offset + length))
      }
    })

    it('return the content to many callers at a time', async () => {
      await using image = await open()
      const length = 3 * clusterSize
      const starts = Array.from({ length: 24 }, (_, index) => (index * 7919 * 512) % (COUNT - 3))
      await Promise.all(
        starts.map(async (start) => {
          const target = new Uint8Array(length)
          await image.read(start * clusterSize, target)
          expectBytes(target, made.disk.subarray(start * clusterSize, start * clusterSize + length))
        }),
      )
    })

    it('read cluster by cluster where bytes between them cannot be read', async () => {
      const longest = clusterSize + 512
      let refusedCount = 0
      const file = new HookedDevice(fileOf())
      await using image = await open(file)
      file.hook = ({ op, length }) => {
        if (op !== 'read' || length <= longest) return
        refusedCount++
        throw new IoError('IO_FAILED', 'read failed')
      }
      const target = new Uint8Array(made.disk.length)
      await image.read(0, target)
      expectBytes(target, made.disk)
      expect(refusedCount).toBeGreaterThan(0)
    })

    it('tell of the first cluster that cannot be read, and of damage before it', async () => {
      const [first, , second] = [...made.places.keys()].sort((a, b) => a - b).slice(4)
      const [good, bad] = [made.places.get(first!)!, made.places.get(second!)!]
      const damage = fileOf((bytes) => bytes.fill(0xff, good, good + 64))
      for (const [target, code] of [
        [fileOf(), 'IO_FAILED'],
        [damage, 'COMPRESSED_DATA'],
      ] as const) {
        const file = new HookedDevice(target)
        await using image = await open(file)
        await image.read(0, new Uint8Array(512))
        file.hook = ({ offset, length }) => {
          if (offset <= bad && bad < offset + length) throw new IoError('IO_FAILED', 'read failed')
        }
        await expect(image.read(0, new Uint8Array(made.disk.length))).rejects.toMatchObject({
          code,
        })
      }
    })

    it('tell of the first damaged cluster, whichever is unpacked first', async () => {
      const [first, second] = [...made.places.keys()].sort((a, b) => a - b).slice(6)
      const file = fileOf((bytes) => {
        // No block can begin so in either method.
        for (const index of [first!, second!]) {
          const place = made.places.get(index)!
          bytes.fill(0xff, place, place + 64)
        }
      })
      await using image = await open(file)
      const single = await image
        .read(first! * clusterSize, new Uint8Array(clusterSize))
        .catch((error: unknown) => error)
      expect(single).toMatchObject(damaged)
      const many = await image
        .read(0, new Uint8Array(made.disk.length))
        .catch((error: unknown) => error)
      expect(many).toMatchObject({ ...damaged, message: (single as Error).message })
      const before = new Uint8Array(first! * clusterSize)
      await image.read(0, before)
      expectBytes(before, made.disk.subarray(0, before.length))
    })
  },
)
