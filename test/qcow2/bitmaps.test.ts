/** Persistent bitmaps: what we read is what qemu reads, what a session stores is what qemu then shows. */

import { join } from 'node:path'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { writeU32, writeU64 } from '../../src/base/bytes.ts'
import { BitmapSession } from '../../src/qcow2/metadata/bitmap-session.ts'
import {
  dirtyRanges,
  loadDirectory,
  readBitmapDirectory,
} from '../../src/qcow2/metadata/bitmap-store.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk, qemuNbd } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { BitmapImage } from './bitmap-image.ts'

const KIB = 1024
const MIB = 1024 ** 2
const GIB = 1024 ** 3
const TIB = 1024 ** 4

interface Wish {
  readonly size: number | string
  readonly clusterSize?: number
  readonly bitmaps: readonly {
    readonly name: string
    readonly granularity?: number
    readonly disabled?: boolean
  }[]
}

/** An image made by qemu-img, with bitmaps. */
async function makeImage({ size, clusterSize, bitmaps }: Wish): Promise<string> {
  const path = join(tempFolder(), 'disk.qcow2')
  const options = `cluster_size=${clusterSize ?? 65536}`
  await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', options, path, String(size)])
  for (const { name, granularity, disabled } of bitmaps) {
    const args = ['bitmap', '--add', '-g', String(granularity ?? 65536)]
    await qemuImgOk([...args, ...(disabled === true ? ['--disable'] : []), path, name])
  }
  return path
}

type Ranges = { offset: number; length: number }[]

/** The dirty ranges as qemu serves them. */
async function rangesByQemu(path: string, name: string): Promise<Ranges> {
  const socket = join(tempFolder(), 's')
  await using _server = await qemuNbd(socket, ['-r', '-f', 'qcow2', '-B', name, path])
  const options = `driver=nbd,server.type=unix,server.path=${socket},x-dirty-bitmap=qemu:dirty-bitmap:${name}`
  const runs = JSON.parse(await qemuImgOk(['map', '--output=json', '--image-opts', options])) as {
    start: number
    length: number
    data: boolean
  }[]
  // That option makes qemu show a dirty range as one without data.
  return joined(
    runs.filter(({ data }) => !data).map(({ start, length }) => ({ offset: start, length })),
  )
}

async function rangesByUs(image: BitmapImage, name: string): Promise<Ranges> {
  const { directory, size } = image.source
  const { records } = await loadDirectory(image, directory, size)
  const record = records.find((item) => item.name === name)
  if (record === undefined) throw new Error(`no bitmap ${name}`)
  const found: Ranges = []
  for await (const batch of dirtyRanges(image, record, size)) found.push(...batch)
  return joined(found)
}

function joined(ranges: Ranges): Ranges {
  const list: Ranges = []
  for (const { offset, length } of ranges) {
    const last = list.at(-1)
    if (last !== undefined && last.offset + last.length === offset) last.length += length
    else list.push({ offset, length })
  }
  return list
}

/** What `qemu-img info` says about the bitmaps: name and flags. */
async function infoOf(path: string): Promise<Record<string, string[]>> {
  const info = JSON.parse(await qemuImgOk(['info', '--output=json', path]))
  const bitmaps: { name: string; flags: string[] }[] = info['format-specific'].data.bitmaps ?? []
  return Object.fromEntries(bitmaps.map(({ name, flags }) => [name, flags]))
}

async function expectClean(path: string): Promise<void> {
  const result = await qemuImg(['check', path])
  expect(result.stdout).toMatch(/^No errors/)
  expect(result.status).toBe(0)
}

async function runSession(image: BitmapImage, ranges: Ranges): Promise<void> {
  const session = await BitmapSession.open(image, image.source)
  await session.markInUse()
  for (const { offset, length } of ranges) session.record(offset, length)
  await session.store()
}

describeWithQemu('reading a bitmap', () => {
  it.each([
    { clusterSize: 65536, granularity: 65536, size: 100 * MIB + 512 },
    { clusterSize: 512, granularity: 512, size: 10 * MIB },
    { clusterSize: 4096, granularity: 512, size: 40 * MIB + 1024 },
    { clusterSize: 2 * MIB, granularity: 4096, size: GIB },
  ])('gives what qemu serves: $clusterSize, $granularity, $size', async (wish) => {
    const path = await makeImage({ ...wish, bitmaps: [{ name: 'b', ...wish }] })
    await qemuIoOk(path, [
      'write 0 4k',
      'write 1M 64k',
      'write 1000k 100k',
      'discard 4M 1M',
      'write -z 5M 3M',
      `write ${wish.size - 512} 512`,
    ])
    const image = BitmapImage.load(path)
    const ranges = await rangesByUs(image, 'b')
    expect(ranges).toEqual(await rangesByQemu(path, 'b'))
    expect(ranges.length).toBeGreaterThan(2)
    expect(await readBitmapDirectory(image.device, image.header)).toHaveLength(1)
    expect(image.log).toEqual([])
  })
})

describeWithQemu('a session', () => {
  it('leaves bits that qemu shows, on top of those that were there', async () => {
    const path = await makeImage({
      size: 100 * MIB,
      bitmaps: [{ name: 'coarse' }, { name: 'fine', granularity: 512 }],
    })
    await qemuIoOk(path, ['write 0 64k', 'write 99M 1M'])
    const image = BitmapImage.load(path)
    await runSession(image, [
      { offset: 5 * MIB + 100, length: 1000 },
      { offset: 40 * MIB, length: 512 },
      { offset: 50 * MIB - 1, length: 2 },
    ])
    image.save(path)
    await expectClean(path)
    expect(await infoOf(path)).toEqual({ coarse: ['auto'], fine: ['auto'] })
    const fine = [
      { offset: 0, length: 64 * KIB },
      { offset: 5 * MIB, length: 3 * 512 },
      { offset: 40 * MIB, length: 512 },
      { offset: 50 * MIB - 512, length: 1024 },
      { offset: 99 * MIB, length: MIB },
    ]
    expect(await rangesByQemu(path, 'fine')).toEqual(fine)
    expect(await rangesByUs(image, 'fine')).toEqual(fine)
    expect(await rangesByQemu(path, 'coarse')).toEqual([
      { offset: 0, length: 64 * KIB },
      { offset: 5 * MIB, length: 64 * KIB },
      { offset: 40 * MIB, length: 64 * KIB },
      { offset: 50 * MIB - 64 * KIB, length: 128 * KIB },
      { offset: 99 * MIB, length: MIB },
    ])
  })

  it('may be followed by another, and by qemu again', async () => {
    const path = await makeImage({ size: 8 * MIB, clusterSize: 4096, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    await runSession(image, [{ offset: 0, length: 1 }])
    await runSession(image, [{ offset: 2 * MIB, length: 1 }])
    image.save(path)
    await qemuIoOk(path, ['write 4M 64k'])
    const again = BitmapImage.load(path)
    await runSession(again, [{ offset: 8 * MIB - 1, length: 1 }])
    again.save(path)
    await expectClean(path)
    const ranges = [0, 2 * MIB, 4 * MIB, 8 * MIB - 65536].map((offset) => ({
      offset,
      length: 65536,
    }))
    expect(await rangesByQemu(path, 'b')).toEqual(ranges)
  })

  it('stores a cluster of ones as an entry, and frees the cluster that held them', async () => {
    const path = await makeImage({
      size: 64 * MIB + 512,
      clusterSize: 4096,
      bitmaps: [{ name: 'b', granularity: 512 }],
    })
    await qemuIoOk(path, ['write 0 4k', 'write 20M 4k'])
    const before = JSON.parse(await qemuImgOk(['check', '--output=json', path]))
    const image = BitmapImage.load(path)
    await runSession(image, [{ offset: 0, length: 64 * MIB + 512 }])
    image.save(path)
    await expectClean(path)
    expect(await rangesByQemu(path, 'b')).toEqual([{ offset: 0, length: 64 * MIB + 512 }])
    expect(before['check-errors']).toBe(0)
    const { directory, size } = image.source
    const { records } = await loadDirectory(image, directory, size)
    const table = new Uint8Array((records[0]?.tableSize ?? 0) * 8)
    await image.read(records[0]?.tableOffset ?? 0, table)
    // Four clusters full of ones, and a fifth with a single bit, behind which the rest is zero.
    expect(Buffer.from(table.subarray(0, 32)).toString('hex')).toBe('0000000000000001'.repeat(4))
    expect(table).toHaveLength(40)
    expect(Buffer.from(table.subarray(32)).readBigUInt64BE()).toBeGreaterThan(4095n)
  })

  it('tracks enabled bitmaps only, and leaves an inconsistent one as it is', async () => {
    const path = await makeImage({
      size: 10 * MIB,
      bitmaps: [{ name: 'on' }, { name: 'off', disabled: true }, { name: 'broken' }],
    })
    const image = BitmapImage.load(path)
    const { directory, size } = image.source
    const { records } = await loadDirectory(image, directory, size)
    const broken = records.find(({ name }) => name === 'broken')
    const flags = new Uint8Array(4)
    writeU32(flags, 0, 3)
    await image.device.write(directory.directoryOffset + (broken?.entryOffset ?? 0) + 12, flags)
    await runSession(image, [{ offset: MIB, length: MIB }])
    image.save(path)
    await expectClean(path)
    expect(await infoOf(path)).toEqual({ on: ['auto'], off: [], broken: ['in-use', 'auto'] })
    expect(await rangesByQemu(path, 'on')).toEqual([{ offset: MIB, length: MIB }])
    expect(await rangesByQemu(path, 'off')).toEqual([])
    await expect(rangesByUs(image, 'broken')).rejects.toThrow("bitmap 'broken' is in use")
  })

  it('shows on disk that it is under way, in flags alone', async () => {
    const path = await makeImage({
      size: 10 * MIB,
      bitmaps: Array.from({ length: 40 }, (_, index) => ({ name: `bitmap number ${index}` })),
    })
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    await session.markInUse()
    session.record(0, 1)
    const writes = image.log.filter(({ bytes }) => bytes !== undefined)
    const sector = (offset: number) => Math.floor(offset / 512)
    for (const { offset, bytes } of writes) {
      expect(sector(offset)).toBe(sector(offset + (bytes?.length ?? 0) - 1))
    }
    expect(new Set(writes.map(({ offset }) => sector(offset))).size).toBe(writes.length)
    expect(image.log.at(-1)?.bytes).toBeUndefined()
    expect(image.log.length).toBe(writes.length + 1)
    image.save(path)
    const flags = Object.values(await infoOf(path))
    expect(flags).toHaveLength(40)
    expect(flags.every((list) => list.join() === 'in-use,auto')).toBe(true)
  })

  it('writes nothing where nothing is enabled', async () => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'off', disabled: true }] })
    const image = BitmapImage.load(path)
    await runSession(image, [{ offset: 0, length: MIB }])
    expect(image.log).toEqual([])
  })

  it('costs memory for what was touched, and none for what was written whole', async () => {
    const path = await makeImage({ size: 64 * TIB, bitmaps: [{ name: 'a' }, { name: 'b' }] })
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    const reads = image.reads
    for (const at of [0, 5 * TIB, 20 * TIB, 20 * TIB + GIB]) session.record(at, 4096)
    expect(session.allocated).toBe(3 * 65536)
    session.record(0, 64 * TIB)
    expect(session.allocated).toBe(0)
    expect(image.reads).toBe(reads)
    await session.store()
    image.save(path)
    expect(await rangesByUs(image, 'b')).toEqual([{ offset: 0, length: 64 * TIB }])
    await expectClean(path)
  })

  it('leaves a bitmap alone whose extra data forbids its use, but in use, for it misses writes', async () => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'x'.repeat(24) }] })
    const image = BitmapImage.load(path)
    const { directory } = image.source
    // Turns eight bytes of the name into extra data that we do not know.
    const lengths = new Uint8Array(6)
    lengths[1] = 16
    lengths[5] = 8
    await image.device.write(directory.directoryOffset + 18, lengths)
    const before = image.device.toBytes()
    await runSession(image, [{ offset: 0, length: MIB }])
    const after = image.device.toBytes()
    expect(after[directory.directoryOffset + 15]).toBe(3)
    after[directory.directoryOffset + 15] = 2
    expect(Buffer.compare(before, after)).toBe(0)
  })

  it('can be stored, marked and stored again', async () => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.store()
    expect(image.log).toEqual([])
    await session.markInUse()
    session.record(0, 1)
    await session.store()
    await session.markInUse()
    session.record(MIB - 1, 1)
    await session.store()
    image.save(path)
    expect(await rangesByQemu(path, 'b')).toEqual([
      { offset: 0, length: 65536 },
      { offset: MIB - 65536, length: 65536 },
    ])
    await expectClean(path)
  })
})

describeWithQemu('a power cut', () => {
  it('at any write leaves a bitmap that is in use, or that holds every bit', async () => {
    const path = await makeImage({
      size: 16 * MIB,
      clusterSize: 4096,
      bitmaps: [{ name: 'b', granularity: 512 }, { name: 'c' }],
    })
    await qemuIoOk(path, ['write 3M 1M'])
    const start = BitmapImage.load(path)
    const image = BitmapImage.load(path)
    await runSession(image, [
      { offset: 0, length: 4 * MIB },
      { offset: 9 * MIB, length: 512 },
    ])
    const whole = { b: await rangesByUs(image, 'b'), c: await rangesByUs(image, 'c') }
    const firstFlush = image.log.findIndex(({ bytes }) => bytes === undefined)
    let inUse = 0
    for (let cut = firstFlush; cut <= image.log.length; cut++) {
      const state = new BitmapImage(start.device.toBytes())
      for (const { offset, bytes } of image.log.slice(0, cut)) {
        if (bytes !== undefined) await state.device.write(offset, bytes)
      }
      const { directory, size } = state.source
      const { records } = await loadDirectory(state, directory, size)
      for (const record of records) {
        if (record.inUse) inUse++
        else {
          expect([record.name, await rangesByUs(state, record.name)]).toEqual([
            record.name,
            whole[record.name as 'b' | 'c'],
          ])
        }
      }
    }
    expect(inUse).toBeGreaterThan(6)
  })

  it('orders bits before tables before flags, with a flush between them', async () => {
    const path = await makeImage({ size: 16 * MIB, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    const { directory, size } = image.source
    const { records } = await loadDirectory(image, directory, size)
    const table = records[0]?.tableOffset ?? 0
    await runSession(image, [{ offset: 0, length: 1 }])
    const kinds = image.log.map(({ offset, bytes }) => {
      if (bytes === undefined) return 'flush'
      if (offset === directory.directoryOffset + 12) return bytes[3] === 3 ? 'in use' : 'free'
      return offset === table ? 'table' : 'bits'
    })
    expect(kinds).toEqual(['in use', 'flush', 'bits', 'flush', 'table', 'flush', 'free', 'flush'])
  })
})

describeWithQemu('resizing', () => {
  /** Plans, places, switches and adopts, as a structural verb does, in the middle of a session. */
  async function resize(image: BitmapImage, session: BitmapSession, size: number): Promise<void> {
    const old = image.source.directory
    const plan = await session.planResize(size)
    const offset = await image.take(Math.ceil(plan.bytes.length / image.clusterSize))
    await image.write(offset, plan.bytes)
    await image.flush()
    await image.switchTo(size, offset, plan.bytes.length)
    session.adopt(plan, offset)
    for (const run of plan.freed) image.free(run.offset, run.clusterCount)
    image.free(old.directoryOffset, Math.ceil(old.directorySize / image.clusterSize))
  }

  const bitmaps = [
    { name: 'fine', granularity: 512 },
    { name: 'coarse' },
    { name: 'off', granularity: 512, disabled: true },
  ]

  it('to a larger disk keeps every bit, and the new bytes are clean', async () => {
    const path = await makeImage({ size: 10 * MIB, bitmaps })
    await qemuIoOk(path, ['write 1M 1M'])
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    session.record(5 * MIB, 512)
    await resize(image, session, 500 * MIB)
    session.record(400 * MIB, 512)
    await session.store()
    image.save(path)
    await expectClean(path)
    expect(await infoOf(path)).toEqual({ fine: ['auto'], coarse: ['auto'], off: [] })
    expect(await rangesByQemu(path, 'fine')).toEqual([
      { offset: MIB, length: MIB },
      { offset: 5 * MIB, length: 512 },
      { offset: 400 * MIB, length: 512 },
    ])
    expect(await rangesByQemu(path, 'off')).toEqual([])
  })

  it('to a smaller disk cuts the bits off, and they do not come back when it grows again', async () => {
    const path = await makeImage({ size: 500 * MIB, bitmaps })
    await qemuIoOk(path, ['write 0 512', 'write 200M 64k', 'write 490M 1M'])
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    session.record(100 * MIB, 512)
    session.record(300 * MIB, MIB)
    await resize(image, session, 200 * MIB)
    await session.store()
    image.save(path)
    await expectClean(path)
    const kept = [
      { offset: 0, length: 512 },
      { offset: 100 * MIB, length: 512 },
    ]
    expect(await rangesByQemu(path, 'fine')).toEqual(kept)
    const again = await BitmapSession.open(image, image.source)
    await again.markInUse()
    await resize(image, again, 500 * MIB)
    await again.store()
    image.save(path)
    await expectClean(path)
    expect(await rangesByQemu(path, 'fine')).toEqual(kept)
    expect(await rangesByUs(image, 'fine')).toEqual(kept)
  })

  it('changes nothing on disk before the switch', async () => {
    const path = await makeImage({ size: 500 * MIB, bitmaps })
    await qemuIoOk(path, ['write 0 512', 'write 200M 64k'])
    const image = BitmapImage.load(path)
    const before = image.device.toBytes()
    const session = await BitmapSession.open(image, image.source)
    await session.planResize(100 * MIB)
    const { length } = before
    expect(image.log.every(({ offset }) => offset >= length)).toBe(true)
  })

  it('refuses a disk for which a bitmap would take more than 512 MiB', async () => {
    const path = await makeImage({ size: MIB, bitmaps })
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await expect(session.planResize(4 * TIB)).rejects.toMatchObject({
      name: 'UsageError',
      code: 'BITMAP_RESIZE',
      message: "bitmap 'fine' would take more than 512 MiB for a disk of 4 TiB",
    })
    await expect(session.planResize(0)).rejects.toMatchObject({ code: 'BITMAP_RESIZE' })
    expect(image.log).toEqual([])
  })
})

describeWithQemu('a damaged bitmap', () => {
  const poke = (at: number, value: number, width: 4 | 8) => async (image: BitmapImage) => {
    const bytes = new Uint8Array(width)
    if (width === 4) writeU32(bytes, 0, value)
    else writeU64(bytes, 0, value)
    await image.device.write(image.source.directory.directoryOffset + at, bytes)
  }

  it.each([
    ['table offset 0', poke(0, 0, 8), 'which is no place for one'],
    ['table off its cluster', poke(0, 65536 + 512, 8), 'which is no place for one'],
    ['empty table', poke(8, 0, 4), 'has a table of 0 entries'],
    ['endless table', poke(8, 0xffffffff, 4), 'has a table of 4294967295 entries'],
    ['too large a table', poke(8, 8193, 4), 'exceeds 512 MiB'],
    ['table for another disk', poke(8, 2, 4), 'has a table of 2 entries, 1 are needed'],
    ['reserved flags', poke(12, 16, 4), 'has reserved flags set'],
    ['unknown type', poke(16, 0x02100001, 4), 'has the unknown type 2'],
    ['granularity', poke(16, 0x01200001, 4), 'has the granularity 2^32'],
  ] as const)('is refused, and nothing is written: %s', async (_title, damage, message) => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    await damage(image)
    await expect(BitmapSession.open(image, image.source)).rejects.toThrow(
      expect.objectContaining({
        name: 'ImageError',
        code: 'BITMAP_DIRECTORY',
        message: expect.stringContaining(message),
      }),
    )
    expect(image.log).toEqual([])
  })

  it.each([
    ['reserved bits', 2],
    ['all set and a place', 65536 + 1],
    ['off its cluster', 512],
    ['outside the file', 2 ** 40],
  ] as const)(
    'in its table is refused when it is stored, and stays in use: %s',
    async (_title, entry) => {
      const path = await makeImage({ size: MIB, bitmaps: [{ name: 'b' }] })
      const image = BitmapImage.load(path)
      const session = await BitmapSession.open(image, image.source)
      const bytes = new Uint8Array(8)
      writeU64(bytes, 0, entry)
      await image.device.write(session.records[0]?.tableOffset ?? 0, bytes)
      await session.markInUse()
      session.record(0, 1)
      await expect(session.store()).rejects.toMatchObject({ name: 'ImageError' })
      image.save(path)
      expect((await loadDirectory(image, image.source.directory, MIB)).records[0]?.inUse).toBe(true)
    },
  )

  it.each([
    ['past the end of the file', { directoryOffset: 2 ** 40 }, 'OUTSIDE_FILE'],
    ['nowhere', { directoryOffset: 0 }, 'BITMAP_DIRECTORY'],
    ['off a cluster', { directoryOffset: 512 }, 'BITMAP_DIRECTORY'],
    ['larger than the file', { directorySize: 64 * MIB }, 'OUTSIDE_FILE'],
    ['shorter than its entries', { directorySize: 24 }, 'BITMAP_DIRECTORY'],
    ['longer than its entries', { directorySize: 40 }, 'BITMAP_DIRECTORY'],
    ['of more entries than it has', { bitmapCount: 2 }, 'BITMAP_DIRECTORY'],
  ] as const)('directory is refused: %s', async (_title, change, code) => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    await image.device.resize(image.device.size + 16)
    const source = image.source
    await expect(
      BitmapSession.open(image, { ...source, directory: { ...source.directory, ...change } }),
    ).rejects.toMatchObject({ name: 'ImageError', code })
  })
})

describeWithQemu('a random session', () => {
  it('holds exactly the bits that a plain set would hold', async () => {
    const size = 24 * MIB + 512
    const path = await makeImage({
      size,
      clusterSize: 4096,
      bitmaps: [
        { name: 'fine', granularity: 512 },
        { name: 'mid', granularity: 8192 },
      ],
    })
    const empty = BitmapImage.load(path).device.toBytes()
    const write = fc.record({
      offset: fc.integer({ min: 0, max: size - 1 }),
      length: fc.oneof(fc.integer({ min: 1, max: 70000 }), fc.integer({ min: 1, max: 10 * MIB })),
    })
    const sessions = fc.array(fc.array(write, { maxLength: 8 }), { minLength: 1, maxLength: 3 })
    await fc.assert(
      fc.asyncProperty(sessions, async (list) => {
        const image = new BitmapImage(empty)
        for (const writes of list) await runSession(image, writes)
        for (const [name, granularity] of [
          ['fine', 512],
          ['mid', 8192],
        ] as const) {
          const dirty = new Uint8Array(Math.ceil(size / granularity))
          for (const { offset, length } of list.flat()) {
            const last = Math.min(offset + length, size) - 1
            dirty.fill(1, Math.floor(offset / granularity), Math.floor(last / granularity) + 1)
          }
          const found = new Uint8Array(dirty.length)
          for (const { offset, length } of await rangesByUs(image, name)) {
            found.fill(1, offset / granularity, Math.ceil((offset + length) / granularity))
          }
          expect(Buffer.compare(found, dirty)).toBe(0)
        }
      }),
      { numRuns: 40 },
    )
  })
})

describeWithQemu('bitmaps without their header bit', () => {
  it('are not listed: software that knows none of them may have written since', async () => {
    const path = await makeImage({ size: MIB, bitmaps: [{ name: 'b' }] })
    const image = BitmapImage.load(path)
    expect(await readBitmapDirectory(image.device, image.header)).toHaveLength(1)
    const header = { ...image.header, autoclearFeatures: 0n }
    expect(await readBitmapDirectory(image.device, header)).toEqual([])
  })
})
