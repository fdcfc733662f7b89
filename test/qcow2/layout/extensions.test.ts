/** Header extensions: the list, the texts, the feature names, and where bitmaps and encryption header lie. */

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { EXTENSION } from '../../../src/qcow2/layout/constants.ts'
import {
  bitmapsExtension,
  encodeBitmapsExtension,
  encodeExtensions,
  encryptionHeader,
  extensionText,
  featureName,
  featureNames,
  featureNameTable,
  parseExtensions,
  textExtension,
} from '../../../src/qcow2/layout/extensions.ts'
import { parseHeader } from '../../../src/qcow2/layout/header.ts'
import { unpackImage } from '../../support/image-matrix.ts'
import { tempFolder } from '../../support/temp.ts'

describe('the list of extensions', () => {
  const list = [
    textExtension(EXTENSION.backingFormat, 'raw'),
    textExtension(EXTENSION.dataFile, 'eightchr'),
    { type: 0x11223344, data: new Uint8Array(0) },
  ]

  it('comes back as it was written', () => {
    const bytes = new Uint8Array(256)
    const end = encodeExtensions(bytes, 104, list, 0)
    expect(end).toBe(104 + 16 + 16 + 8 + 8)
    expect(parseExtensions(bytes, 104, 256)).toEqual(list)
    expect(extensionText(list, EXTENSION.dataFile)).toBe('eightchr')
    expect(extensionText(list, EXTENSION.bitmaps)).toBeUndefined()
  })

  it('ends where its area ends, also without an end marker', () => {
    const bytes = new Uint8Array(256).fill(0xff)
    encodeExtensions(bytes, 104, list, 0)
    expect(parseExtensions(bytes, 104, 144)).toEqual(list)
    expect(parseExtensions(bytes, 104, 104)).toEqual([])
    expect(parseExtensions(bytes, 104, 96)).toEqual([])
  })

  it('is refused where an extension or its head runs past the area', () => {
    const bytes = new Uint8Array(256)
    encodeExtensions(bytes, 104, list, 0)
    for (const end of [105, 111, 112, 114, 124]) {
      expect(() => parseExtensions(bytes, 104, end)).toThrow(/runs past its area/)
    }
  })

  it('keeps the room free that it was told to', () => {
    const bytes = new Uint8Array(104 + 48)
    expect(encodeExtensions(bytes, 104, list, 0)).toBe(bytes.length)
    expect(() => encodeExtensions(bytes, 104, list, 1)).toThrow(/does not fit/)
  })

  it.each([
    ['a backing format of 16 bytes', textExtension(EXTENSION.backingFormat, 'x'.repeat(16))],
    ['an encryption header of 15 bytes', { type: EXTENSION.encryption, data: new Uint8Array(15) }],
  ])('is refused with %s', (_what, extension) => {
    const bytes = new Uint8Array(256)
    encodeExtensions(bytes, 0, [extension], 0)
    expect(() => parseExtensions(bytes, 0, 256)).toThrow(
      expect.objectContaining({ code: 'HEADER_EXTENSION' }),
    )
  })
})

describe('the feature name table', () => {
  it('is that of qemu-img, byte for byte', () => {
    const { extensions } = parseHeader(readFileSync(unpackImage('v3-64k', tempFolder())))
    const theirs = extensions.find((extension) => extension.type === EXTENSION.featureNames)
    expect(Buffer.compare(featureNameTable().data, theirs!.data)).toBe(0)
  })

  it('names the bits of each kind', () => {
    const table = [featureNameTable()]
    expect(featureName(table, 'incompatible', 4)).toBe('extended L2 entries')
    expect(featureName(table, 'compatible', 0)).toBe('lazy refcounts')
    expect(featureName(table, 'autoclear', 7)).toBeUndefined()
    expect(featureNames([])).toEqual([])
  })

  it('gives the whole rows it has, and skips kinds that do not exist', () => {
    const data = new Uint8Array(48 * 2 + 47)
    data.set([3, 0, 0x41], 0)
    data.set([1, 9, ...new Array(46).fill(0x42)], 48)
    data.set([0, 0, 0x43], 96)
    expect(featureNames([{ type: EXTENSION.featureNames, data }])).toEqual([
      { kind: 'compatible', bit: 9, name: 'B'.repeat(46) },
    ])
  })
})

describe('the bitmaps extension', () => {
  const value = { bitmapCount: 3, directorySize: 96, directoryOffset: 2 ** 40 }

  it('comes back as it was written', () => {
    expect(bitmapsExtension([encodeBitmapsExtension(value)])).toEqual(value)
    expect(bitmapsExtension([])).toBeUndefined()
  })

  it.each([
    ['no bitmap', { ...value, bitmapCount: 0 }],
    ['too many bitmaps', { ...value, bitmapCount: 65536 }],
    ['too large a directory', { ...value, directorySize: 1024 * 65535 + 1 }],
  ])('is refused with %s', (_what, wrong) => {
    expect(() => bitmapsExtension([encodeBitmapsExtension(wrong)])).toThrow(
      expect.objectContaining({ code: 'BITMAP_DIRECTORY' }),
    )
  })

  it('is refused with a wrong length, reserved bits or numbers out of range', () => {
    const { type, data } = encodeBitmapsExtension(value)
    expect(() => bitmapsExtension([{ type, data: data.subarray(0, 23) }])).toThrow(/23 bytes/)
    for (const at of [4, 8, 16]) {
      const wrong = data.slice()
      wrong[at] = 0xff
      expect(() => bitmapsExtension([{ type, data: wrong }])).toThrow(/bitmaps extension/)
    }
  })
})

describe('the encryption header', () => {
  it('lies where the extension says, if that can be', () => {
    const data = Buffer.alloc(16)
    data.writeBigUInt64BE(0x40000n, 0)
    data.writeBigUInt64BE(0x1f8000n, 8)
    const extension = { type: EXTENSION.encryption, data }
    expect(encryptionHeader([extension])).toEqual({ offset: 0x40000, length: 0x1f8000 })
    expect(encryptionHeader([])).toBeUndefined()
    data[0] = 0x80
    expect(encryptionHeader([extension])).toBeUndefined()
  })
})
