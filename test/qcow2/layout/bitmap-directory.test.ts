/** The directory of dirty bitmaps: what qemu-img wrote comes back, and what breaks the format is refused by entry. */

import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ImageError } from '../../../src/base/errors.ts'
import {
  type BitmapRecord,
  bitmapBytes,
  bitmapFlags,
  bitmapTableEntries,
  encodeBitmapDirectory,
  parseBitmapDirectory,
} from '../../../src/qcow2/layout/bitmap-directory.ts'
import { bitmapsExtension } from '../../../src/qcow2/layout/extensions.ts'
import { headerClusterSize, parseHeader } from '../../../src/qcow2/layout/header.ts'
import { imageManifest, unpackImage } from '../../support/image-matrix.ts'
import { tempFolder } from '../../support/temp.ts'

const record: fc.Arbitrary<BitmapRecord> = fc.record({
  name: fc.string({ minLength: 1, maxLength: 30, unit: 'binary' }),
  tableOffset: fc.nat(2 ** 43).map((number) => number * 512),
  tableSize: fc.nat(0xffffffff),
  inUse: fc.boolean(),
  auto: fc.boolean(),
  extraDataCompatible: fc.boolean(),
  granularityBits: fc.integer({ min: 9, max: 31 }),
  extraData: fc.uint8Array({ maxLength: 20 }),
})

const GOOD: BitmapRecord = {
  name: 'nightly',
  tableOffset: 0x50000,
  tableSize: 1,
  inUse: false,
  auto: true,
  extraDataCompatible: false,
  granularityBits: 16,
  extraData: new Uint8Array(0),
}

const WITH_BITMAPS = imageManifest().whole.filter((image) => image.bitmaps.length > 0)

describe('a directory that qemu-img wrote', () => {
  it.each(WITH_BITMAPS)('is read as qemu-img lists it, and comes back: $name', (image) => {
    const bytes = readFileSync(unpackImage(image, tempFolder()))
    const { extensions } = parseHeader(bytes.subarray(0, headerClusterSize(bytes)))
    const { directoryOffset, directorySize, bitmapCount } = bitmapsExtension(extensions)!
    const directory = bytes.subarray(directoryOffset, directoryOffset + directorySize)
    const records = parseBitmapDirectory(directory, bitmapCount)
    const seen = records.map((one) => ({
      name: one.name,
      granularity: 2 ** one.granularityBits,
      flags: [...(one.inUse ? ['in-use'] : []), ...(one.auto ? ['auto'] : [])],
    }))
    expect(seen).toEqual(
      image.bitmaps.map(({ name, granularity, flags }) => ({ name, granularity, flags })),
    )
    expect(Buffer.compare(encodeBitmapDirectory(records), directory)).toBe(0)
  })
})

describe('a directory', () => {
  it('of any records comes back, each with the place of its entry', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 6 }), (records) => {
        const bytes = encodeBitmapDirectory(records)
        const parsed = parseBitmapDirectory(bytes, records.length)
        expect(parsed.map(({ entryOffset: _, ...rest }) => rest)).toEqual(records)
        for (const one of parsed) {
          expect(Buffer.from(bytes).readUInt32BE(one.entryOffset + 12)).toBe(bitmapFlags(one))
        }
      }),
    )
  })

  const change = (width: 1 | 2 | 4, at: number, value: number): Uint8Array => {
    const bytes = Buffer.from(encodeBitmapDirectory([GOOD]))
    bytes.writeUIntBE(value, at, width)
    return bytes
  }

  it.each([
    ['reserved flags', change(4, 12, 8)],
    ['another type', change(1, 16, 2)],
    ['a granularity of 256 bytes', change(1, 17, 8)],
    ['a granularity of 4 GiB', change(1, 17, 32)],
    ['no name', change(2, 18, 0)],
    ['a name that runs out of the directory', change(2, 18, 30)],
    ['extra data that runs out of the directory', change(4, 20, 0xffffffff)],
    ['a table beyond all numbers', change(4, 0, 0x200000)],
  ])('is refused with %s', (_what, bytes) => {
    expect(() => parseBitmapDirectory(bytes, 1)).toThrow(
      expect.objectContaining({ code: 'BITMAP_DIRECTORY' }),
    )
  })

  it('is refused with more or fewer entries than announced', () => {
    const bytes = encodeBitmapDirectory([GOOD, GOOD])
    expect(() => parseBitmapDirectory(bytes, 1)).toThrow(/bytes too many/)
    expect(() => parseBitmapDirectory(bytes, 3)).toThrow(/entry 2 lies past the end/)
  })

  it('throws nothing but an ImageError, whatever its bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(4), (bytes, count) => {
        try {
          parseBitmapDirectory(bytes, count)
        } catch (error) {
          expect(error).toBeInstanceOf(ImageError)
        }
      }),
    )
  })
})

describe('the bits of a bitmap', () => {
  it('take as many bytes and clusters as the disk needs', () => {
    expect(bitmapBytes(0, 16)).toBe(0)
    expect(bitmapBytes(65536 * 8, 16)).toBe(1)
    expect(bitmapBytes(65536 * 8 + 1, 16)).toBe(2)
    expect(bitmapTableEntries(65536 * 8 * 512, 16, 512)).toBe(1)
    expect(bitmapTableEntries(65536 * 8 * 512 + 1, 16, 512)).toBe(2)
    expect(bitmapTableEntries(2 ** 50, 31, 65536)).toBe(1)
  })
})
