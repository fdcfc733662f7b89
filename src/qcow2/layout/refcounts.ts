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
  /** Adds 1 or -1 to the counts in `[from, to)` and stops at the first that is zero, would become zero or go over the maximum; returns its index. */
  add(block: Uint8Array, from: number, to: number, delta: 1 | -1): number
  /** Where the counts from `from` on, whose first is 1 or is not, stop being so; at most `to`. */
  likeEnd(block: Uint8Array, from: number, to: number): number
}

/** What can be made of `get` and `set`. A codec has its own where a loop over them is too slow. */
type Loops = Pick<RefcountCodec, 'add' | 'likeEnd'>

function loops({ get, set, maximum }: Pick<RefcountCodec, 'get' | 'set' | 'maximum'>): Loops {
  return {
    add(block, from, to, delta) {
      for (let index = from; index < to; index++) {
        const old = get(block, index)
        const next = old + delta
        if (old === 0 || next === 0 || next > maximum) return index
        set(block, index, next)
      }
      return to
    },
    likeEnd(block, from, to) {
      const isOne = get(block, from) === 1
      let index = from + 1
      while (index < to && (get(block, index) === 1) === isOne) index++
      return index
    },
  }
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

function subByte(bits: 1 | 2 | 4): Omit<RefcountCodec, keyof Loops> {
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

const CODECS: readonly (Omit<RefcountCodec, keyof Loops> & Partial<Loops>)[] = [
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
    add(block, from, to, delta) {
      const least = delta > 0 ? 2 : 1
      for (let at = from * 2; at < to * 2; at += 2) {
        const next = (((block[at] as number) << 8) | (block[at + 1] as number)) + delta
        if (next < least || next > 0xffff) return at / 2
        block[at] = next >>> 8
        block[at + 1] = next
      }
      return to
    },
    likeEnd(block, from, to) {
      const isOne = block[from * 2] === 0 && block[from * 2 + 1] === 1
      let at = from * 2 + 2
      while (at < to * 2 && (block[at + 1] === 1 && block[at] === 0) === isOne) at += 2
      return at / 2
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

const WHOLE_CODECS: readonly RefcountCodec[] = CODECS.map((codec) => ({
  ...loops(codec),
  ...codec,
}))

/** The codec for refcounts of `2 ** order` bits; `order` is 0 to 6. */
export function refcountCodec(order: number): RefcountCodec {
  const codec = WHOLE_CODECS[order]
  if (codec === undefined) throw new RangeError(`refcount order ${order}`)
  return codec
}
