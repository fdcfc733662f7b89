/**
 * Tables of an image as lists of what is in them. A table is parsed once for each content that it has: which content that is
 * says the hash of its cluster. So walking through a state costs its entries, not its tables.
 */

import { inflateRawSync } from 'node:zlib'
import { loadCodec } from '../../src/codec/index.ts'
import type { FileState } from './file-state.ts'
import { type HeaderResult, parseHeader } from './parsed-header.ts'
import { joined, mix, SECTOR_SIZE, sectorOf } from './sector.ts'

/** Numbers of an L2 entry in `L2List.entries`. */
export const L2_STRIDE = 6
/** Kinds of L2 entries. */
export const KIND = { normal: 1, zero: 2, compressed: 3, subclusters: 4 } as const

/** The entries of an L2 table that are not empty: index, kind, host offset, copied, and two numbers that the kind explains. */
export interface L2List {
  readonly entries: Float64Array
  readonly error: string | undefined
}

/** References of an L1, refcount or bitmap table: index, offset, copied flag, all other bits. */
export interface OffsetList {
  readonly entries: Float64Array
  readonly error: string | undefined
}

/** A snapshot as the simulator reads it. */
export interface ParsedSnapshot {
  readonly label: string
  readonly l1Offset: number
  readonly l1Size: number
  readonly diskSize: number | undefined
}

/** A bitmap as its directory has it. */
export interface ParsedBitmap {
  readonly name: string
  readonly tableOffset: number
  readonly tableSize: number
  readonly inUse: boolean
  readonly auto: boolean
  readonly granularityBits: number
}

/** A list of things in a table of varying entries, with the bytes it takes. */
export interface ParsedList<T> {
  readonly items: readonly T[]
  readonly length: number
  readonly error: string | undefined
}

const CACHE_LIMIT = 20_000
const decoder = new TextDecoder('latin1')

class Cache<T> {
  readonly #map = new Map<number, T>()

  get(key: number, make: () => T): T {
    let value = this.#map.get(key)
    if (value === undefined) {
      if (this.#map.size >= CACHE_LIMIT) this.#map.clear()
      value = make()
      this.#map.set(key, value)
    }
    return value
  }
}

/** Parsed tables of one run; contents of all its states share them. */
export class ParsedTables {
  readonly #headers = new Cache<HeaderResult>()
  readonly #l2 = new Cache<L2List>()
  readonly #offsets = new Cache<OffsetList>()
  readonly #refcounts = new Cache<Float64Array>()
  readonly #snapshots = new Cache<ParsedList<ParsedSnapshot>>()
  readonly #bitmaps = new Cache<ParsedList<ParsedBitmap>>()
  readonly #compressed = new Cache<Int32Array | undefined>()

  header(file: FileState): HeaderResult {
    const { clusterSize } = file
    const length = Math.max(SECTOR_SIZE, clusterSize)
    return this.#headers.get(file.clusterKey(0), () => parseHeader(file.bytes(0, length)))
  }

  l2(file: FileState, cluster: number, extended: boolean, version: number): L2List {
    return this.#l2.get(file.clusterKey(cluster) + version, () => {
      const { clusterSize } = file
      return parseL2(file.bytes(cluster * clusterSize, clusterSize), { extended, version })
    })
  }

  /** The offsets in one cluster of an L1, refcount or bitmap table. */
  offsets(file: FileState, cluster: number): OffsetList {
    return this.#offsets.get(file.clusterKey(cluster), () => {
      const { clusterSize } = file
      return parseOffsets(file.bytes(cluster * clusterSize, clusterSize))
    })
  }

  /** The refcounts in one block that are not zero: index and count. */
  refcounts(file: FileState, cluster: number, bits: number): Float64Array {
    const key = file.clusterKey(cluster) + bits
    return this.#refcounts.get(key, () => {
      const { clusterSize } = file
      return parseRefcounts(file.bytes(cluster * clusterSize, clusterSize), bits)
    })
  }

  snapshots(file: FileState, offset: number, count: number): ParsedList<ParsedSnapshot> {
    const length = Math.min(file.length - offset, Math.max(file.clusterSize, 4096 * count))
    return this.#snapshots.get(rangeKey(file, offset, length) + count, () =>
      parseSnapshots(file.bytes(offset, length), count),
    )
  }

  bitmaps(file: FileState, offset: number, size: number, count: number): ParsedList<ParsedBitmap> {
    return this.#bitmaps.get(rangeKey(file, offset, size) + count, () =>
      parseBitmaps(file.bytes(offset, size), count),
    )
  }

  /** What a compressed cluster reads as, sector by sector; undefined where it cannot be read. */
  compressed(
    file: FileState,
    offset: number,
    sectorCount: number,
    isZstd: boolean,
  ): Int32Array | undefined {
    const { clusterSize } = file
    const length = sectorCount * SECTOR_SIZE - (offset % SECTOR_SIZE)
    const key = rangeKey(file, offset, length) + (offset % SECTOR_SIZE)
    return this.#compressed.get(isZstd ? -1 - key : key, () =>
      unpack(file.bytes(offset, length), clusterSize, isZstd),
    )
  }
}

function rangeKey(file: FileState, offset: number, length: number): number {
  let [a, b] = [mix(3, length), mix(5, offset)]
  const end = Math.min(Math.ceil((offset + length) / SECTOR_SIZE), file.sectors.length)
  for (let index = Math.floor(offset / SECTOR_SIZE); index < end; index++) {
    const sector = file.sectors[index]
    if (sector === undefined || sector.a === 0) continue
    a ^= mix(index, sector.a)
    b ^= mix(index, sector.b)
  }
  return joined(a, b)
}

const zstd = await loadCodec('zstd')

function unpack(bytes: Uint8Array, clusterSize: number, isZstd: boolean): Int32Array | undefined {
  let plain = new Uint8Array(clusterSize)
  try {
    if (isZstd) zstd.decompress(bytes, plain)
    else plain = inflateRawSync(bytes, { maxOutputLength: clusterSize, finishFlush: 2 })
  } catch {
    return undefined
  }
  if (plain.length !== clusterSize) return undefined
  return Int32Array.from({ length: clusterSize / SECTOR_SIZE }, (_, index) => {
    const at = index * SECTOR_SIZE
    return sectorOf(plain.slice(at, at + SECTOR_SIZE)).a
  })
}

function words(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function parseL2(
  bytes: Uint8Array,
  { extended, version }: { extended: boolean; version: number },
): L2List {
  const view = words(bytes)
  const entrySize = extended ? 16 : 8
  const clusterBits = Math.log2(bytes.length)
  const hiBits = 62 - (clusterBits - 8) - 32
  const list: number[] = []
  let error: string | undefined
  for (let index = 0; index * entrySize < bytes.length; index++) {
    const at = index * entrySize
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    const zeroes = extended ? view.getUint32(at + 8) : 0
    const allocated = extended ? view.getUint32(at + 12) : 0
    if (hi === 0 && lo === 0 && zeroes === 0 && allocated === 0) continue
    const copied = hi >>> 31
    if ((hi & 0x40000000) !== 0) {
      const offset = (hi & (2 ** hiBits - 1)) * 2 ** 32 + lo
      const sectorCount = ((hi & 0x3fffffff) >>> hiBits) + 1
      if (copied === 1) error = 'compressed cluster with copied flag'
      list.push(index, KIND.compressed, offset, copied, sectorCount, 0)
      continue
    }
    const offset = (hi & 0xffffff) * 2 ** 32 + ((lo & 0xfffffe00) >>> 0)
    if ((hi & 0x3f000000) !== 0 || (lo & (extended || version < 3 ? 0x1ff : 0x1fe)) !== 0) {
      error = 'reserved bits in L2 entry'
    }
    if (extended) {
      if ((zeroes & allocated) !== 0) error = 'subcluster both zero and allocated'
      list.push(index, KIND.subclusters, offset, copied, zeroes, allocated)
    } else {
      list.push(index, (lo & 1) === 1 ? KIND.zero : KIND.normal, offset, copied, 0, 0)
    }
  }
  return { entries: Float64Array.from(list), error }
}

function parseOffsets(bytes: Uint8Array): OffsetList {
  const view = words(bytes)
  const list: number[] = []
  for (let index = 0; index * 8 < bytes.length; index++) {
    const hi = view.getUint32(index * 8)
    const lo = view.getUint32(index * 8 + 4)
    if (hi === 0 && lo === 0) continue
    const offset = (hi & 0xffffff) * 2 ** 32 + ((lo & 0xfffffe00) >>> 0)
    list.push(index, offset, hi >>> 31, ((hi & 0x7f000000) | (lo & 0x1ff)) >>> 0)
  }
  return { entries: Float64Array.from(list), error: undefined }
}

function parseRefcounts(bytes: Uint8Array, bits: number): Float64Array {
  const view = words(bytes)
  const list: number[] = []
  const count = (bytes.length * 8) / bits
  for (let index = 0; index < count; index++) {
    const byte = (index * bits) >> 3
    let value: number
    if (bits < 8) value = (view.getUint8(byte) >> ((index * bits) & 7)) & (2 ** bits - 1)
    else if (bits === 8) value = view.getUint8(byte)
    else if (bits === 16) value = view.getUint16(byte)
    else if (bits === 32) value = view.getUint32(byte)
    else value = view.getUint32(byte) * 2 ** 32 + view.getUint32(byte + 4)
    if (value !== 0) list.push(index, value)
  }
  return Float64Array.from(list)
}

function parseSnapshots(bytes: Uint8Array, count: number): ParsedList<ParsedSnapshot> {
  const view = words(bytes)
  const items: ParsedSnapshot[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    if (at + 40 > bytes.length) return { items, length: at, error: 'snapshot table ends early' }
    const idSize = view.getUint16(at + 12)
    const nameSize = view.getUint16(at + 14)
    const extraSize = view.getUint32(at + 36)
    const end = at + 40 + extraSize + idSize + nameSize
    if (end > bytes.length) return { items, length: at, error: 'snapshot entry ends early' }
    const u64 = (place: number) => view.getUint32(place) * 2 ** 32 + view.getUint32(place + 4)
    const text = (from: number, length: number) =>
      decoder.decode(bytes.subarray(from, from + length))
    const id = text(at + 40 + extraSize, idSize)
    const name = text(at + 40 + extraSize + idSize, nameSize)
    const state = extraSize >= 8 ? u64(at + 40) : view.getUint32(at + 32)
    items.push({
      label: `${id} '${name}' vm ${state}`,
      l1Offset: u64(at),
      l1Size: view.getUint32(at + 8),
      diskSize: extraSize >= 16 ? u64(at + 48) : undefined,
    })
    at = at + Math.ceil((end - at) / 8) * 8
  }
  return { items, length: at, error: undefined }
}

function parseBitmaps(bytes: Uint8Array, count: number): ParsedList<ParsedBitmap> {
  const view = words(bytes)
  const items: ParsedBitmap[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    if (at + 24 > bytes.length) return { items, length: at, error: 'bitmap directory ends early' }
    const nameSize = view.getUint16(at + 18)
    const extraSize = view.getUint32(at + 20)
    const nameAt = at + 24 + extraSize
    if (nameAt + nameSize > bytes.length || bytes[at + 16] !== 1) {
      return { items, length: at, error: 'bitmap entry is damaged' }
    }
    const flags = view.getUint32(at + 12)
    items.push({
      name: decoder.decode(bytes.subarray(nameAt, nameAt + nameSize)),
      tableOffset: view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4),
      tableSize: view.getUint32(at + 8),
      inUse: (flags & 1) !== 0,
      auto: (flags & 2) !== 0,
      granularityBits: bytes[at + 17] as number,
    })
    at += Math.ceil((24 + extraSize + nameSize) / 8) * 8
  }
  return { items, length: at, error: undefined }
}
