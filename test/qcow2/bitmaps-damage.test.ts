/** Bitmaps after a power cut, and bitmaps that break the format. */

import { expect, it } from 'vitest'
import { writeU32, writeU64 } from '../../src/base/bytes.ts'
import { BitmapSession } from '../../src/qcow2/metadata/bitmap-session.ts'
import { loadDirectory } from '../../src/qcow2/metadata/bitmap-store.ts'
import { describeWithQemu, qemuIoOk } from '../support/qemu.ts'
import { BitmapImage } from './bitmap-image.ts'
import { MIB, makeImage, rangesByUs, runSession } from './bitmap-steps.ts'

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
