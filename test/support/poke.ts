/**
 * Reads and damages qcow2 images in memory, by name: header fields, table entries, refcounts, snapshot entries,
 * header extensions, bitmap entries. Uses no code under test, so that a wrong engine cannot agree with itself.
 * A damage is plain data (`Patch`): test/images/MANIFEST.json holds the broken images as a whole one plus patches.
 */

import { readFileSync, writeFileSync } from 'node:fs'

/** Offset and width in bytes of every header field, named as in the qcow2 specification. */
export const HEADER_FIELDS = {
  magic: [0, 4],
  version: [4, 4],
  backing_file_offset: [8, 8],
  backing_file_size: [16, 4],
  cluster_bits: [20, 4],
  size: [24, 8],
  crypt_method: [32, 4],
  l1_size: [36, 4],
  l1_table_offset: [40, 8],
  refcount_table_offset: [48, 8],
  refcount_table_clusters: [56, 4],
  nb_snapshots: [60, 4],
  snapshots_offset: [64, 8],
  incompatible_features: [72, 8],
  compatible_features: [80, 8],
  autoclear_features: [88, 8],
  refcount_order: [96, 4],
  header_length: [100, 4],
  compression_type: [104, 1],
} as const

/** Offset and width of the fixed fields of a snapshot table entry. */
export const SNAPSHOT_FIELDS = {
  l1_table_offset: [0, 8],
  l1_size: [8, 4],
  id_size: [12, 2],
  name_size: [14, 2],
  date_sec: [16, 4],
  date_nsec: [20, 4],
  vm_clock_nsec: [24, 8],
  vm_state_size: [32, 4],
  extra_data_size: [36, 4],
  extra_vm_state_size: [40, 8],
  extra_disk_size: [48, 8],
  extra_icount: [56, 8],
} as const

/** Offset and width of the fixed fields of a bitmap directory entry. */
export const BITMAP_FIELDS = {
  bitmap_table_offset: [0, 8],
  bitmap_table_size: [8, 4],
  flags: [12, 4],
  type: [16, 1],
  granularity_bits: [17, 1],
  name_size: [18, 2],
  extra_data_size: [20, 4],
} as const

/** Types of the header extensions that the specification names. */
export const EXTENSIONS = {
  end: 0,
  backing_format: 0xe2792aca,
  feature_names: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  data_file: 0x44415441,
} as const

export type HeaderField = keyof typeof HEADER_FIELDS
export type SnapshotField = keyof typeof SNAPSHOT_FIELDS
export type BitmapField = keyof typeof BITMAP_FIELDS
export type ExtensionName = keyof typeof EXTENSIONS

/** A number, or a hexadecimal string (`0x8000000000050000`) where a number is too short or unreadable. */
export type PatchValue = number | string

/** One damage; applied in order, each to what the ones before left. Indices count from 0. */
export type Patch =
  | { readonly header: HeaderField; readonly value: PatchValue }
  | { readonly l1: number; readonly value: PatchValue }
  | { readonly l2: number; readonly value: PatchValue }
  | { readonly l2Bitmap: number; readonly value: PatchValue }
  | { readonly refcountTable: number; readonly value: PatchValue }
  | { readonly refcount: number; readonly value: PatchValue }
  | { readonly snapshot: number; readonly field: SnapshotField; readonly value: PatchValue }
  | { readonly snapshotL1: readonly [number, number]; readonly value: PatchValue }
  | {
      readonly extension: ExtensionName
      readonly field: 'type' | 'length'
      readonly value: PatchValue
    }
  | { readonly extension: ExtensionName; readonly at: number; readonly bytes: string }
  | { readonly bitmap: number; readonly field: BitmapField; readonly value: PatchValue }
  | { readonly bitmapTable: readonly [number, number]; readonly value: PatchValue }
  | { readonly offset: number; readonly width: 1 | 2 | 4 | 8; readonly value: PatchValue }
  | { readonly offset: number; readonly bytes: string }
  | { readonly offset: number; readonly text: string }
  | { readonly fileSize: number }

/** A qcow2 image in memory, read and written field by field. The buffer is its own; `fileSize` replaces it. */
export class ImageBytes {
  bytes: Buffer

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes)
  }

  /** Reads the whole file. */
  static load(path: string): ImageBytes {
    return new ImageBytes(readFileSync(path))
  }

  /** Writes the whole file. */
  save(path: string): void {
    writeFileSync(path, this.bytes)
  }

  /** The unsigned big-endian number of `width` bytes at `offset`. */
  get(offset: number, width: number): bigint {
    let value = 0n
    for (const byte of this.bytes.subarray(offset, offset + width))
      value = (value << 8n) | BigInt(byte)
    return value
  }

  /** Stores `value` big-endian in `width` bytes at `offset`; the place must lie in the file. */
  set(offset: number, width: number, value: PatchValue | bigint): void {
    if (offset + width > this.bytes.length) throw new Error(`patch at ${offset} lies past the file`)
    let rest = BigInt.asUintN(width * 8, BigInt(value))
    for (let at = offset + width - 1; at >= offset; at--, rest >>= 8n) {
      this.bytes[at] = Number(rest & 0xffn)
    }
  }

  /** The value of a header field. */
  header(field: HeaderField): number {
    const [offset, width] = HEADER_FIELDS[field]
    return Number(this.get(offset, width))
  }

  get clusterSize(): number {
    return 2 ** this.header('cluster_bits')
  }

  /** Bytes of one L2 entry: 8, or 16 with extended L2 entries. */
  get l2EntrySize(): number {
    return this.header('version') >= 3 && this.header('incompatible_features') & 16 ? 16 : 8
  }

  /** Where entry `index` of the active L1 table lies. */
  l1At(index: number): number {
    return this.header('l1_table_offset') + 8 * index
  }

  /** Where the L2 entry of guest cluster `index` (active view) lies. */
  l2At(index: number): number {
    const entryCount = this.clusterSize / this.l2EntrySize
    const table = tableOffset(this.get(this.l1At(Math.floor(index / entryCount)), 8))
    if (table === 0) throw new Error(`guest cluster ${index} has no L2 table`)
    return table + (index % entryCount) * this.l2EntrySize
  }

  /** The L2 entry of guest cluster `index` of the active view. */
  l2(index: number): bigint {
    return this.get(this.l2At(index), 8)
  }

  /** The stored refcount of host cluster `index`. */
  refcount(index: number): bigint {
    const { at, bits, shift } = this.#refcountAt(index)
    return (this.get(at, Math.max(1, bits / 8)) >> BigInt(shift)) & (2n ** BigInt(bits) - 1n)
  }

  /** Stores the refcount of host cluster `index`; its refcount block must exist. */
  setRefcount(index: number, value: PatchValue): void {
    const { at, bits, shift } = this.#refcountAt(index)
    if (bits >= 8) {
      this.set(at, bits / 8, value)
      return
    }
    const mask = (2n ** BigInt(bits) - 1n) << BigInt(shift)
    this.set(at, 1, (this.get(at, 1) & ~mask) | ((BigInt(value) << BigInt(shift)) & mask))
  }

  #refcountAt(index: number): { at: number; bits: number; shift: number } {
    const bits = this.header('version') >= 3 ? 2 ** this.header('refcount_order') : 16
    const perBlock = (this.clusterSize * 8) / bits
    const tableAt = this.header('refcount_table_offset') + 8 * Math.floor(index / perBlock)
    const block = tableOffset(this.get(tableAt, 8))
    if (block === 0) throw new Error(`host cluster ${index} has no refcount block`)
    const bit = (index % perBlock) * bits
    return { at: block + Math.floor(bit / 8), bits, shift: bits < 8 ? bit % 8 : 0 }
  }

  /** Where snapshot table entry `index` begins; one past the last gives the end of the table. */
  snapshotAt(index: number): number {
    let at = this.header('snapshots_offset')
    for (let i = 0; i < index; i++) {
      const [idSize, nameSize, extraSize] = [12, 14, 36].map((offset) =>
        Number(this.get(at + offset, offset === 36 ? 4 : 2)),
      )
      at += Math.ceil((40 + extraSize! + idSize! + nameSize!) / 8) * 8
    }
    return at
  }

  /** A field of a snapshot table entry. */
  snapshot(index: number, field: SnapshotField): number {
    const [offset, width] = SNAPSHOT_FIELDS[field]
    return Number(this.get(this.snapshotAt(index) + offset, width))
  }

  /** Where the header extension begins (its type field), or undefined. */
  extensionAt(name: ExtensionName): number | undefined {
    let at = this.header('version') >= 3 ? this.header('header_length') : 72
    for (;;) {
      const type = Number(this.get(at, 4))
      if (type === EXTENSIONS[name]) return at
      if (type === 0) return undefined
      at += 8 + Math.ceil(Number(this.get(at + 4, 4)) / 8) * 8
    }
  }

  /** Where bitmap directory entry `index` begins. */
  bitmapAt(index: number): number {
    let at = Number(this.get(this.#extension('bitmaps') + 8 + 16, 8))
    for (let i = 0; i < index; i++) {
      const size = 24 + Number(this.get(at + 18, 2)) + Number(this.get(at + 20, 4))
      at += Math.ceil(size / 8) * 8
    }
    return at
  }

  #extension(name: ExtensionName): number {
    const at = this.extensionAt(name)
    if (at === undefined) throw new Error(`the image has no header extension ${name}`)
    return at
  }

  /** Applies one damage. */
  apply(patch: Patch): void {
    if ('header' in patch) this.#setField(0, HEADER_FIELDS[patch.header], patch.value)
    else if ('l1' in patch) this.set(this.l1At(patch.l1), 8, patch.value)
    else if ('l2' in patch) this.set(this.l2At(patch.l2), 8, patch.value)
    else if ('l2Bitmap' in patch) this.set(this.l2At(patch.l2Bitmap) + 8, 8, patch.value)
    else if ('refcountTable' in patch)
      this.set(this.header('refcount_table_offset') + 8 * patch.refcountTable, 8, patch.value)
    else if ('refcount' in patch) this.setRefcount(patch.refcount, patch.value)
    else if ('snapshot' in patch)
      this.#setField(this.snapshotAt(patch.snapshot), SNAPSHOT_FIELDS[patch.field], patch.value)
    else if ('snapshotL1' in patch) {
      const [index, entry] = patch.snapshotL1
      this.set(this.snapshot(index, 'l1_table_offset') + 8 * entry, 8, patch.value)
    } else if ('bitmap' in patch)
      this.#setField(this.bitmapAt(patch.bitmap), BITMAP_FIELDS[patch.field], patch.value)
    else if ('bitmapTable' in patch) {
      const [index, entry] = patch.bitmapTable
      this.set(Number(this.get(this.bitmapAt(index), 8)) + 8 * entry, 8, patch.value)
    } else if ('fileSize' in patch) this.resize(patch.fileSize)
    else this.#applyPlain(patch)
  }

  #applyPlain(patch: Extract<Patch, { extension: ExtensionName } | { offset: number }>): void {
    const start = 'extension' in patch ? this.#extension(patch.extension) : patch.offset
    if ('field' in patch) {
      this.set(start + (patch.field === 'type' ? 0 : 4), 4, patch.value)
    } else if ('width' in patch) {
      this.set(start, patch.width, patch.value)
    } else {
      const data = 'text' in patch ? Buffer.from(patch.text) : Buffer.from(patch.bytes, 'hex')
      data.copy(this.bytes, 'extension' in patch ? start + 8 + patch.at : start)
    }
  }

  #setField(at: number, [offset, width]: readonly [number, number], value: PatchValue): void {
    this.set(at + offset, width, value)
  }

  /** Cuts the file, or lengthens it with zero bytes. */
  resize(fileSize: number): void {
    const resized = Buffer.alloc(fileSize)
    this.bytes.copy(resized, 0, 0, fileSize)
    this.bytes = resized
  }
}

/** The image after `patches`; `bytes` itself stays as it is. */
export function patched(bytes: Uint8Array, patches: readonly Patch[]): Buffer {
  const image = new ImageBytes(bytes)
  for (const patch of patches) image.apply(patch)
  return image.bytes
}

/** Applies `patches` to the file at `path`. */
export function pokeFile(path: string, patches: readonly Patch[]): void {
  writeFileSync(path, patched(readFileSync(path), patches))
}

/** The cluster offset in an L1, L2 or refcount table entry: bits 9 to 55. */
export function tableOffset(entry: bigint): number {
  return Number(entry & 0x00fffffffffffe00n)
}
