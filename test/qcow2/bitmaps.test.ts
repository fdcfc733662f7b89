/** Persistent bitmaps: what we read is what qemu reads, what a session stores is what qemu then shows. */

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { writeU32 } from '../../src/base/bytes.ts'
import { BitmapSession } from '../../src/qcow2/metadata/bitmap-session.ts'
import { loadDirectory, readBitmapDirectory } from '../../src/qcow2/metadata/bitmap-store.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { BitmapImage } from './bitmap-image.ts'
import {
  expectClean,
  GIB,
  infoOf,
  KIB,
  MIB,
  makeImage,
  rangesByQemu,
  rangesByUs,
  runSession,
  TIB,
} from './bitmap-steps.ts'

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
