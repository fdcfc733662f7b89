/** Converting and new images, without qemu: what is stored, what is left out, and what a failure leaves behind. */

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compare } from '../../src/block/index.ts'
import { convertInto, convertToNew } from '../../src/chain/convert.ts'
import { Gate, NewImage, openChain } from '../../src/chain/index.ts'
import { JoinedDevice } from '../../src/chain/joined-device.ts'
import { checkImage } from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { FaultyFiles } from '../storage/faulty-files.ts'
import { tempFolder } from '../support/temp.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** A disk with data here and there: bytes differ from block to block. */
async function disk(
  size: number,
  ...ranges: readonly (readonly [number, number])[]
): Promise<MemoryDevice> {
  const device = new MemoryDevice(size)
  for (const [offset, length] of ranges) {
    const bytes = Uint8Array.from({ length }, (_, index) => ((offset + index) % 251) + 1)
    await device.write(offset, bytes)
  }
  return device
}

const scattered = () =>
  disk(3 * MIB, [0, 5000], [200_000, 70_000], [MIB + 3, 1], [3 * MIB - 100, 100])

async function expectSame(path: string, device: MemoryDevice): Promise<void> {
  await using chain = await openChain(path, { gate: new Gate({ allowAll: true }) })
  expect(await compare(chain.device, device)).toEqual({ identical: true, sizesDiffer: false })
  const { image, file } = chain.active
  if (image === undefined) return
  const report = await checkImage(file)
  expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0])
}

describe('convertToNew', () => {
  it.each([
    [{}, false],
    [{ clusterSize: 512 }, false],
    [{ clusterSize: 2 * MIB }, false],
    [{ version: 2 }, false],
    [{ extendedL2: true }, false],
    [{ preallocation: 'metadata' }, false],
    [{}, true],
    [{ clusterSize: 4096 }, true],
  ] as const)('makes a qcow2 image of %o, compressed: %o', async (options, compress) => {
    const location = join(tempFolder(), 'out.qcow2')
    const source = await scattered()
    await convertToNew(source, { location, layout: { format: 'qcow2', options } }, { compress })
    await expectSame(location, source)
  })

  it('leaves what is zero unallocated', async () => {
    const location = join(tempFolder(), 'out.qcow2')
    const source = await disk(64 * MIB, [10 * MIB, 100])
    await convertToNew(source, { location, layout: { format: 'qcow2', options: {} } })
    await using chain = await openChain(location)
    const first = await chain.active.image?.map(0, 64 * MIB)
    expect(first).toEqual({ kind: 'unallocated', length: 10 * MIB })
  })

  it('stores everything where the sparse size is 0', async () => {
    const location = join(tempFolder(), 'out.qcow2')
    const layout = { format: 'qcow2', options: {} } as const
    await convertToNew(new MemoryDevice(MIB), { location, layout }, { sparseSize: 0 })
    await using chain = await openChain(location)
    const { kind, length } = (await chain.active.image?.map(0, MIB)) ?? {}
    expect({ kind, length }).toEqual({ kind: 'normal', length: MIB })
  })

  it('makes a raw image, as sparse as the source', async () => {
    const location = join(tempFolder(), 'out.raw')
    const source = await scattered()
    await convertToNew(source, { location, layout: { format: 'raw' } })
    const bytes = new Uint8Array(source.size)
    await source.read(0, bytes)
    expect(readFileSync(location).equals(bytes)).toBe(true)
    const stat = await nodeFiles.stat(location)
    expect(stat.allocated).toBeLessThan(MIB)
  })

  it('tells how far it is, up to the end', async () => {
    const location = join(tempFolder(), 'out.raw')
    const source = await scattered()
    const told: number[] = []
    await convertToNew(
      source,
      { location, layout: { format: 'raw' } },
      { onProgress: ({ done }) => told.push(done) },
    )
    expect(told.at(-1)).toBe(source.size)
    expect(told).toEqual([...told].sort((a, b) => a - b))
  })

  it('leaves nothing behind when it is aborted', async () => {
    const folder = tempFolder()
    const abort = new AbortController()
    const converting = convertToNew(
      await scattered(),
      { location: join(folder, 'out.qcow2'), layout: { format: 'qcow2', options: {} } },
      { signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) },
    )
    await expect(converting).rejects.toThrow('enough')
    expect(readdirSync(folder)).toEqual([])
  })

  it.each([0, 3, 8])(
    'leaves nothing behind when the disk is full after %i writes',
    async (passCount) => {
      const folder = tempFolder()
      const files = new FaultyFiles(nodeFiles)
      files.failAfter('write', passCount, 'ENOSPC')
      const converting = convertToNew(await disk(8 * MIB, [0, 8 * MIB]), {
        location: join(folder, 'out.qcow2'),
        layout: { format: 'qcow2', options: {} },
        files,
      })
      await expect(converting).rejects.toMatchObject({ code: 'NO_SPACE' })
      expect(readdirSync(folder)).toEqual([])
    },
  )

  it('gives the name last, so that a crash leaves no image under it', async () => {
    const folder = tempFolder()
    const location = join(folder, 'out.raw')
    let seen = true
    await convertToNew(
      await scattered(),
      { location, layout: { format: 'raw' } },
      { onProgress: () => (seen = existsSync(location)) },
    )
    expect([seen, existsSync(location)]).toEqual([false, true])
    expect(readdirSync(folder)).toEqual(['out.raw'])
  })

  it('replaces a file that is there, and keeps it where the options cannot be', async () => {
    const location = join(tempFolder(), 'out.qcow2')
    writeFileSync(location, 'precious')
    const source = await scattered()
    const to = (clusterSize: number) =>
      convertToNew(source, { location, layout: { format: 'qcow2', options: { clusterSize } } })
    await expect(to(1000)).rejects.toMatchObject({ code: 'CLUSTER_SIZE' })
    expect(readFileSync(location, 'utf8')).toBe('precious')
    await to(4096)
    await expectSame(location, source)
  })

  it('brings a durable image to storage before it gets its name', async () => {
    const location = join(tempFolder(), 'out.qcow2')
    const layout = { format: 'qcow2', options: {} } as const
    const quick = new FaultyFiles(nodeFiles)
    await convertToNew(await scattered(), { location, layout, files: quick })
    const durable = new FaultyFiles(nodeFiles)
    await convertToNew(await scattered(), {
      location: `${location}2`,
      layout,
      files: durable,
      durable: true,
    })
    expect(quick.syncs).toEqual([])
    expect(durable.syncs.length).toBeGreaterThan(0)
  })

  it('keeps to a rate', async () => {
    const location = join(tempFolder(), 'out.raw')
    const source = await scattered()
    await convertToNew(source, { location, layout: { format: 'raw' } }, { rateLimit: 100 * MIB })
    await expectSame(location, source)
  })
})

describe('converting onto a backing file', () => {
  const MARK = 0xee

  /** A base of 2 MiB full of marks at `base.qcow2`, and what it reads as. */
  async function makeBase(folder: string): Promise<{ path: string; content: MemoryDevice }> {
    const path = join(folder, 'base.qcow2')
    const content = new MemoryDevice(2 * MIB)
    await content.write(0, new Uint8Array(2 * MIB).fill(MARK))
    await convertToNew(content, { location: path, layout: { format: 'qcow2', options: {} } })
    return { path, content }
  }

  it.each([4 * KIB, 64 * KIB])(
    'stores only clusters of %i bytes that differ',
    async (clusterSize) => {
      const folder = tempFolder()
      const base = await makeBase(folder)
      const source = new MemoryDevice(3 * MIB)
      await source.write(0, new Uint8Array(2 * MIB).fill(MARK))
      await source.write(100_000, new Uint8Array(10).fill(1))
      await source.write(MIB, new Uint8Array(256 * KIB))
      await source.write(2500 * KIB, new Uint8Array(10).fill(2))
      const location = join(folder, 'over.qcow2')
      const backing = { name: 'base.qcow2', format: 'qcow2' }
      await using chain = await openChain(base.path)
      await convertToNew(
        source,
        {
          location,
          layout: { format: 'qcow2', options: { clusterSize, backing } },
          backing: chain.device,
        },
        { unchanged: { backing: chain.device } },
      )
      await expectSame(location, source)
      await using over = await openChain(location)
      const image = over.active.image!
      const runs: { kind: string; from: number; length: number }[] = []
      for (let at = 0; at < source.size; ) {
        const { kind, length } = await image.map(at, source.size - at)
        const last = runs.at(-1)
        if (last?.kind === kind) last.length += length
        else runs.push({ kind, from: at, length })
        at += length
      }
      const kinds = runs.map(({ kind, from, length }) => `${kind} ${from} ${length}`)
      const around = (offset: number) => Math.floor(offset / clusterSize) * clusterSize
      expect(kinds).toEqual([
        `unallocated 0 ${around(100_000)}`,
        `normal ${around(100_000)} ${clusterSize}`,
        `unallocated ${around(100_000) + clusterSize} ${MIB - around(100_000) - clusterSize}`,
        `zero ${MIB} ${256 * KIB}`,
        `unallocated ${MIB + 256 * KIB} ${around(2500 * KIB) - MIB - 256 * KIB}`,
        `normal ${around(2500 * KIB)} ${clusterSize}`,
        ...(around(2500 * KIB) + clusterSize < source.size
          ? [
              `unallocated ${around(2500 * KIB) + clusterSize} ${source.size - around(2500 * KIB) - clusterSize}`,
            ]
          : []),
      ])
    },
  )

  it('keeps what the source reads, whatever the backing holds', async () => {
    const folder = tempFolder()
    const base = await makeBase(folder)
    const source = await scattered()
    const location = join(folder, 'over.qcow2')
    const backing = { name: 'base.qcow2', format: 'qcow2' }
    await using chain = await openChain(base.path)
    await convertToNew(
      source,
      { location, layout: { format: 'qcow2', options: { backing } }, backing: chain.device },
      { unchanged: { backing: chain.device }, compress: true },
    )
    await expectSame(location, source)
  })
})

describe('convertInto', () => {
  it('writes zeroes over what a target holds, and leaves what lies behind the source', async () => {
    const target = new MemoryDevice(4 * MIB)
    await target.write(0, new Uint8Array(4 * MIB).fill(9))
    const source = await scattered()
    await convertInto(source, { device: target, isZero: false })
    const wanted = new Uint8Array(4 * MIB).fill(9)
    await source.read(0, wanted.subarray(0, source.size))
    const found = new Uint8Array(4 * MIB)
    await target.read(0, found)
    expect(Buffer.compare(found, wanted)).toBe(0)
  })

  it('refuses a target that is too small', async () => {
    const into = convertInto(new MemoryDevice(2 * MIB), {
      device: new MemoryDevice(MIB),
      isZero: true,
    })
    await expect(into).rejects.toMatchObject({ code: 'TARGET_TOO_SMALL' })
  })
})

describe('NewImage', () => {
  it('is removed when it is not finished', async () => {
    const folder = tempFolder()
    const dataFile = { name: 'data.raw' }
    const layout = { format: 'qcow2', options: { dataFile } } as const
    {
      await using made = await NewImage.create({
        location: join(folder, 'a.qcow2'),
        layout,
        size: MIB,
      })
      await made.device.write(0, new Uint8Array(100).fill(1))
    }
    expect(readdirSync(folder).filter((name) => name.startsWith('a.'))).toEqual([])
  })

  it('fills an external data file beside the image', async () => {
    const folder = tempFolder()
    const dataFile = { name: 'data.raw', raw: true }
    const layout = { format: 'qcow2', options: { dataFile } } as const
    const source = await scattered()
    await convertToNew(source, { location: join(folder, 'a.qcow2'), layout })
    await expectSame(join(folder, 'a.qcow2'), source)
    await expectSame(join(folder, 'data.raw'), source)
  })
})

describe('JoinedDevice', () => {
  it('reads the devices behind one another, each padded to whole sectors', async () => {
    const parts = [700, 512, 0, 100_000].map(async (size, index) => {
      const device = new MemoryDevice(size)
      await device.write(0, new Uint8Array(size).fill(index + 1))
      return device
    })
    const joined = new JoinedDevice(await Promise.all(parts))
    expect(joined.size).toBe(1024 + 512 + 100_352)
    const wanted = new Uint8Array(joined.size)
    wanted.fill(1, 0, 700).fill(2, 1024, 1536).fill(4, 1536, 101_536)
    for (const [from, to] of [
      [0, joined.size],
      [600, 1600],
      [1000, 1030],
      [1500, 1540],
      [101_500, joined.size],
    ] as const) {
      const found = new Uint8Array(to - from).fill(0xaa)
      await joined.read(from, found)
      expect(Buffer.compare(found, wanted.subarray(from, to))).toBe(0)
    }
    await expect(joined.read(joined.size - 1, new Uint8Array(2))).rejects.toMatchObject({
      code: 'OUT_OF_RANGE',
    })
  })

  it('knows the holes of all of them', async () => {
    const first = new MemoryDevice(MIB)
    const second = await disk(MIB, [512 * KIB, 64 * KIB])
    const joined = new JoinedDevice([first, second])
    const kinds: string[] = []
    for (let at = 0; at < joined.size; ) {
      for (const { offset, length, kind } of await joined.extents(at, joined.size - at)) {
        expect(offset).toBe(at)
        kinds.push(`${kind} ${length}`)
        at += length
      }
    }
    expect(kinds).toEqual([
      `hole ${MIB}`,
      `hole ${512 * KIB}`,
      `data ${64 * KIB}`,
      `hole ${448 * KIB}`,
    ])
  })

  it('cannot be written', async () => {
    const joined = new JoinedDevice([new MemoryDevice(512)])
    await expect(joined.write()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
    await expect(joined.resize()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  })

  it('leaves its devices open', async () => {
    const path = join(tempFolder(), 'a.raw')
    writeFileSync(path, Buffer.alloc(512))
    await using file = await FileDevice.open(nodeFiles, path)
    await new JoinedDevice([file]).close()
    await file.read(0, new Uint8Array(512))
    expect(file.size).toBe(512)
  })
})
