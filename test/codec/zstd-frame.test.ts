import { describe, expect, it } from 'vitest'
import { zstdCodec, zstdEngines } from '../../src/codec/zstd.ts'
import { outlineFrame } from '../../src/codec/zstd-frame.ts'
import { expectBytes, pattern } from '../support/device-contract.ts'

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd]

/** A block header: the last one or not, its type, its size. */
function block(last: boolean, type: number, size: number): number[] {
  const word = (last ? 1 : 0) | (type << 1) | (size << 3)
  return [word & 0xff, (word >> 8) & 0xff, word >> 16]
}

const raw = (last: boolean, bytes: Uint8Array) => [...block(last, 0, bytes.length), ...bytes]
const repeated = (last: boolean, byte: number, count: number) => [...block(last, 1, count), byte]
const frame = (...parts: number[][]) => Uint8Array.from([...MAGIC, ...parts.flat()])

const cases: [string, Uint8Array, { contentSize: number | undefined; windowSize: number }][] = [
  [
    'no size, a window of 1 KiB',
    frame([0x00, 0x00], raw(true, pattern(30, 1))),
    { contentSize: undefined, windowSize: 1024 },
  ],
  [
    'no size, a window of 3.5 MiB, a checksum',
    frame([0x04, 0x5e], raw(false, pattern(10, 1)), repeated(true, 7, 20), [0, 0, 0, 0]),
    { contentSize: undefined, windowSize: 3.5 * 2 ** 20 },
  ],
  [
    'one segment with a size of one byte',
    frame([0x20, 30], raw(true, pattern(30, 1))),
    { contentSize: 30, windowSize: 30 },
  ],
  [
    'a size of two bytes, which counts from 256',
    frame([0x60, 44, 0], repeated(true, 1, 300)),
    { contentSize: 300, windowSize: 300 },
  ],
  [
    'a size of four bytes',
    frame([0xa0, 0, 0, 1, 0], repeated(true, 1, 65_536)),
    { contentSize: 65_536, windowSize: 65_536 },
  ],
  [
    'a size of eight bytes and a window',
    frame([0xc0, 0x00, 30, 0, 0, 0, 0, 0, 0, 0], repeated(true, 1, 30)),
    { contentSize: 30, windowSize: 1024 },
  ],
  [
    'a dictionary number of 0',
    frame([0x22, 0, 0, 30], repeated(true, 1, 30)),
    { contentSize: 30, windowSize: 30 },
  ],
]

describe('outlineFrame', () => {
  it.each(cases)('finds the end of a frame with %s', (_, bytes, wanted) => {
    const padded = Buffer.concat([Buffer.alloc(3, 0xfd), bytes, Buffer.alloc(700, 0x28)])
    expect(outlineFrame(padded, 3)).toEqual({ length: bytes.length, skippable: false, ...wanted })
  })

  it.each(cases)('says at every place that a frame with %s is cut short', (_, bytes) => {
    for (let length = 0; length < bytes.length; length++) {
      expect(outlineFrame(bytes.subarray(0, length), 0)).toBe('cut short')
    }
  })

  it.each([
    ['no frame', Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])],
    ['unknown frame header', frame([0x08, 0, 0, 0, 0])],
    ['unknown block', frame([0x20, 3], block(true, 3, 3), [1, 2, 3])],
    ['needs a dictionary', frame([0x21, 9, 3], raw(true, pattern(3, 1)))],
  ])('says %s where that is so', (reason, bytes) => {
    expect(outlineFrame(bytes, 0)).toBe(reason)
  })

  it('measures a frame that is to be skipped', () => {
    const bytes = Uint8Array.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3, 9])
    expect(outlineFrame(bytes, 0)).toMatchObject({ length: 11, skippable: true })
    expect(outlineFrame(bytes.subarray(0, 10), 0)).toBe('cut short')
  })
})

describe.each(await zstdEngines())('the engine $name', (engine) => {
  const codec = zstdCodec(engine)

  it('unpacks frames without a size, one after the other, with something to skip between', () => {
    const source = pattern(700, 1)
    const packed = Buffer.concat([
      frame([0x00, 0x00], raw(true, source.subarray(0, 300))),
      Uint8Array.from([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2]),
      frame([0x00, 0x00], raw(false, source.subarray(300, 600)), raw(true, source.subarray(600))),
      Buffer.alloc(300, 0xff),
    ])
    const target = new Uint8Array(700)
    codec.decompress(packed, target)
    expectBytes(target, source)
  })

  it('refuses a content that is longer than promised or than there is room', () => {
    const refused = (bytes: Uint8Array, length: number) =>
      expect(() => codec.decompress(bytes, new Uint8Array(length))).toThrow(
        expect.objectContaining({ code: 'COMPRESSED_DATA' }),
      )
    refused(frame([0x20, 30], repeated(true, 1, 31)), 31)
    refused(frame([0x00, 0x00], repeated(true, 1, 600)), 512)
    refused(frame([0xe0, 0, 0, 0, 0, 0, 0, 0x20, 0], repeated(true, 1, 600)), 512)
  })

  it('refuses a window above 128 MiB before anything is reserved for it', () => {
    const bytes = frame([0x00, 0xf8], repeated(true, 1, 512))
    expect(() => codec.decompress(bytes, new Uint8Array(512))).toThrow(/window too large/)
  })
})
