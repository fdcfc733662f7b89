/** Refcounts in a block's bytes, for every width. Widths below a byte fill it from the low bits up. */

/** Reads and writes one width of refcount in the bytes of a block. */
export interface RefcountCodec {
  readonly bits: number
  /** The highest count that can be stored; for 64 bits the highest exact number. */
  readonly maximum: number
  get(block: Uint8Array, index: number): number
  set(block: Uint8Array, index: number, count: number): void
  /** The first index in `[from, to)` whose count is zero, or -1. The block's memory is aligned to 8 bytes. */
  findZero(block: Uint8Array, from: number, to: number): number
}

function scan(get: RefcountCodec['get']): (block: Uint8Array, from: number, to: number) => number {
  return (block, from, to) => {
    for (let index = from; index < to; index++) if (get(block, index) === 0) return index
    return -1
  }
}

function within(index: number, to: number): number {
  return index < to ? index : -1
}

function subByte(bits: 1 | 2 | 4): RefcountCodec {
  const perByteShift = bits === 1 ? 3 : bits === 2 ? 2 : 1
  const slotMask = (1 << perByteShift) - 1
  const maximum = (1 << bits) - 1
  const get = (block: Uint8Array, index: number): number =>
    ((block[index >>> perByteShift] as number) >>> ((index & slotMask) * bits)) & maximum
  return {
    bits,
    maximum,
    get,
    findZero: scan(get),
    set(block, index, count) {
      const at = index >>> perByteShift
      const shift = (index & slotMask) * bits
      block[at] = ((block[at] as number) & ~(maximum << shift)) | (count << shift)
    },
  }
}

const TWO_32 = 0x100000000

function u32(block: Uint8Array, at: number): number {
  return (
    (((block[at] as number) << 24) |
      ((block[at + 1] as number) << 16) |
      ((block[at + 2] as number) << 8) |
      (block[at + 3] as number)) >>>
    0
  )
}

function put32(block: Uint8Array, at: number, value: number): void {
  block[at] = value >>> 24
  block[at + 1] = value >>> 16
  block[at + 2] = value >>> 8
  block[at + 3] = value
}

function get64(block: Uint8Array, index: number): number {
  return u32(block, index * 8) * TWO_32 + u32(block, index * 8 + 4)
}

const CODECS: readonly RefcountCodec[] = [
  subByte(1),
  subByte(2),
  subByte(4),
  {
    bits: 8,
    maximum: 0xff,
    get: (block, index) => block[index] as number,
    findZero: (block, from, to) => within(block.indexOf(0, from), to),
    set(block, index, count) {
      block[index] = count
    },
  },
  {
    bits: 16,
    maximum: 0xffff,
    get: (block, index) => ((block[index * 2] as number) << 8) | (block[index * 2 + 1] as number),
    findZero(block, from, to) {
      const words = new Uint16Array(block.buffer, block.byteOffset, block.byteLength >>> 1)
      return within(words.indexOf(0, from), to)
    },
    set(block, index, count) {
      block[index * 2] = count >>> 8
      block[index * 2 + 1] = count
    },
  },
  {
    bits: 32,
    maximum: TWO_32 - 1,
    get: (block, index) => u32(block, index * 4),
    findZero(block, from, to) {
      const words = new Uint32Array(block.buffer, block.byteOffset, block.byteLength >>> 2)
      return within(words.indexOf(0, from), to)
    },
    set(block, index, count) {
      put32(block, index * 4, count)
    },
  },
  {
    bits: 64,
    maximum: Number.MAX_SAFE_INTEGER,
    // A count beyond 2^53 is no count that an image can reach: it stays beyond the maximum when read.
    get: get64,
    findZero: scan(get64),
    set(block, index, count) {
      put32(block, index * 8, Math.floor(count / TWO_32))
      put32(block, index * 8 + 4, count % TWO_32)
    },
  },
]

/** The codec for refcounts of `2 ** order` bits; `order` is 0 to 6. */
export function refcountCodec(order: number): RefcountCodec {
  const codec = CODECS[order]
  if (codec === undefined) throw new RangeError(`refcount order ${order}`)
  return codec
}
