/**
 * Builds small qcow2 images byte by byte from what a test says lies in them, without any code under test.
 * Layout, in clusters: header · refcount table · refcount blocks · active L1 · L2 tables · data, then per snapshot its
 * L1, then the snapshot table. Refcounts are counted from what was placed, unless the test says otherwise. For what
 * the builder does not offer, damage the result with `poke.ts`.
 */

import { EXTENSIONS, type ExtensionName, HEADER_FIELDS, type HeaderField } from './poke.ts'

/** What a guest cluster holds. `raw` puts the L2 entry (and subcluster bitmap) there as it is and places nothing. */
export type BuiltCluster =
  | { readonly kind: 'data'; readonly bytes: Uint8Array; readonly bitmap?: bigint }
  | { readonly kind: 'zero' }
  | { readonly kind: 'zero-allocated' }
  | { readonly kind: 'raw'; readonly entry: bigint; readonly bitmap?: bigint }
  /** The cluster that the active view has at the same place (snapshots only). */
  | { readonly kind: 'shared' }

/** Guest clusters by number. */
export type BuiltContent = Readonly<Record<number, BuiltCluster>>

export interface BuiltSnapshot {
  readonly id: string
  readonly name: string
  readonly size?: number
  readonly vmStateSize?: number
  /** Extra data bytes as they are; without it version 3 has VM state size, disk size and icount. */
  readonly extraData?: Uint8Array
  readonly content?: BuiltContent
}

export interface ImageSpec {
  readonly size: number
  readonly version?: 2 | 3
  readonly clusterBits?: number
  readonly refcountOrder?: number
  readonly extendedL2?: boolean
  readonly content?: BuiltContent
  readonly snapshots?: readonly BuiltSnapshot[]
  readonly backing?: { readonly name: string; readonly format?: string }
  /** Header extensions, in this order, after the backing format; `type` by name or number. */
  readonly extensions?: readonly {
    readonly type: ExtensionName | number
    readonly data: Uint8Array
  }[]
  readonly incompatible?: number
  readonly compatible?: number
  readonly autoclear?: number
  /** 104 (without compression type) or 112; what lies beyond is zero. */
  readonly headerLength?: number
  /** Header fields that are set last, whatever the rest says. */
  readonly header?: Readonly<Partial<Record<HeaderField, number | bigint>>>
  /** Refcounts by host cluster that are stored instead of the counted ones. */
  readonly refcounts?: Readonly<Record<number, number>>
  /** Clusters of zero bytes, with refcount 0, appended at the end. */
  readonly spareClusterCount?: number
}

/** The image, and where everything lies in it (bytes). */
export interface BuiltImage {
  readonly bytes: Uint8Array
  readonly clusterSize: number
  readonly refcountTable: number
  readonly refcountBlocks: readonly number[]
  readonly l1: number
  /** L2 tables of the active view by L1 index. */
  readonly l2: ReadonlyMap<number, number>
  /** Host offset by guest cluster of the active view. */
  readonly data: ReadonlyMap<number, number>
  readonly snapshotTable: number
  readonly snapshotL1: readonly number[]
  /** Counted references by host cluster. */
  readonly counts: readonly number[]
}

const COPIED = 1n << 63n
const ZERO = 1n

/** Builds the image; throws if the header does not fit its cluster. */
export function buildImage(spec: ImageSpec): BuiltImage {
  return new Builder(spec).build()
}

class Builder {
  readonly spec: ImageSpec
  readonly clusterSize: number
  readonly entrySize: number
  readonly refcountBits: number
  readonly clusters: Buffer[] = []
  readonly counts: number[] = []
  readonly l2 = new Map<number, number>()
  readonly data = new Map<number, number>()
  readonly snapshotL1: number[] = []

  constructor(spec: ImageSpec) {
    this.spec = spec
    this.clusterSize = 2 ** (spec.clusterBits ?? 16)
    this.entrySize = spec.extendedL2 === true ? 16 : 8
    this.refcountBits = 2 ** (spec.refcountOrder ?? 4)
  }

  build(): BuiltImage {
    const blockCount = this.#refcountBlockCount()
    this.#take(1)
    const refcountTable = this.#take(Math.ceil((blockCount * 8) / this.clusterSize))
    const refcountBlocks = Array.from({ length: blockCount }, () => this.#take(1))
    const l1 = this.#placeView(this.spec.content ?? {}, this.l1Length(this.spec.size), true)
    const snapshotTable = this.#placeSnapshots()
    this.#setCopied(l1)
    this.#fixRefcounts(refcountTable, refcountBlocks)
    this.#writeHeader({ l1, refcountTable, snapshotTable })
    const spare = Buffer.alloc((this.spec.spareClusterCount ?? 0) * this.clusterSize)
    return {
      bytes: Buffer.concat([...this.clusters, spare]),
      clusterSize: this.clusterSize,
      refcountTable,
      refcountBlocks,
      l1,
      l2: this.l2,
      data: this.data,
      snapshotTable,
      snapshotL1: this.snapshotL1,
      counts: this.counts,
    }
  }

  l1Length(size: number): number {
    return Math.ceil(size / ((this.clusterSize * this.clusterSize) / this.entrySize))
  }

  /** Enough blocks for a generous guess of the clusters that will be taken. */
  #refcountBlockCount(): number {
    const contents = [this.spec.content, ...(this.spec.snapshots ?? []).map((s) => s.content)]
    const listed = contents.reduce((sum, content) => sum + Object.keys(content ?? {}).length, 0)
    const l1Bytes = 8 * this.l1Length(this.spec.size) * contents.length
    const spare = this.spec.spareClusterCount ?? 0
    const clusterCount =
      8 + spare + 2 * listed + 2 * contents.length + Math.ceil((2 * l1Bytes) / this.clusterSize)
    return Math.ceil(clusterCount / ((this.clusterSize * 8) / this.refcountBits - 2)) + 1
  }

  /** Takes adjoining clusters at the end, each with one reference, and returns their offset. */
  #take(clusterCount: number): number {
    const offset = this.clusters.length * this.clusterSize
    for (let i = 0; i < clusterCount; i++) {
      this.clusters.push(Buffer.alloc(this.clusterSize))
      this.counts.push(1)
    }
    return offset
  }

  #cluster(offset: number): Buffer {
    return this.clusters[offset / this.clusterSize]!
  }

  #writeBytes(offset: number, bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; from += this.clusterSize) {
      Buffer.from(bytes.subarray(from, from + this.clusterSize)).copy(this.#cluster(offset + from))
    }
  }

  /** Writes L1, L2 tables and data of one view; returns the offset of its L1. */
  #placeView(content: BuiltContent, l1Length: number, active: boolean): number {
    const l1Bytes = Buffer.alloc(l1Length * 8)
    const l1 = this.#take(Math.max(1, Math.ceil(l1Bytes.length / this.clusterSize)))
    const perTable = this.clusterSize / this.entrySize
    const tables = new Map<number, number>()
    for (const [key, cluster] of Object.entries(content)) {
      const guest = Number(key)
      const index = Math.floor(guest / perTable)
      const table = tables.get(index) ?? this.#take(1)
      tables.set(index, table)
      l1Bytes.writeBigUInt64BE(BigInt(table) | COPIED, index * 8)
      const at = (guest % perTable) * this.entrySize
      const [entry, bitmap] = this.#placeCluster(guest, cluster, active)
      this.#cluster(table).writeBigUInt64BE(entry, at)
      if (this.entrySize === 16) this.#cluster(table).writeBigUInt64BE(bitmap, at + 8)
    }
    if (active) for (const [index, table] of tables) this.l2.set(index, table)
    this.#writeBytes(l1, l1Bytes)
    return l1
  }

  /** The L2 entry of a cluster and its subcluster bitmap. */
  #placeCluster(guest: number, cluster: BuiltCluster, active: boolean): [bigint, bigint] {
    const extended = this.entrySize === 16
    if (cluster.kind === 'raw') return [cluster.entry, cluster.bitmap ?? 0n]
    if (cluster.kind === 'zero') return extended ? [0n, 0xffffffff00000000n] : [ZERO, 0n]
    if (cluster.kind === 'shared') {
      const shared = this.data.get(guest)
      if (shared === undefined) throw new Error(`guest cluster ${guest} has no data to share`)
      this.counts[shared / this.clusterSize]! += 1
      return [BigInt(shared), 0xffffffffn]
    }
    const offset = this.#take(1)
    if (active) this.data.set(guest, offset)
    if (cluster.kind === 'data') {
      this.#writeBytes(offset, cluster.bytes)
      return [BigInt(offset) | COPIED, cluster.bitmap ?? 0xffffffffn]
    }
    return [
      BigInt(offset) | COPIED | (extended ? 0n : ZERO),
      0xffffffff00000000n, // every subcluster reads as zeroes, none as data
    ]
  }

  #placeSnapshots(): number {
    const entries: Buffer[] = []
    for (const snapshot of this.spec.snapshots ?? []) {
      const size = snapshot.size ?? this.spec.size
      const l1Length = this.l1Length(size)
      const l1 = this.#placeView(snapshot.content ?? {}, l1Length, false)
      this.snapshotL1.push(l1)
      entries.push(this.#snapshotEntry(snapshot, { l1, l1Length, size }))
    }
    if (entries.length === 0) return 0
    const table = Buffer.concat(entries)
    const offset = this.#take(Math.ceil(table.length / this.clusterSize))
    this.#writeBytes(offset, table)
    return offset
  }

  #snapshotEntry(
    snapshot: BuiltSnapshot,
    place: { readonly l1: number; readonly l1Length: number; readonly size: number },
  ): Buffer {
    const id = Buffer.from(snapshot.id)
    const name = Buffer.from(snapshot.name)
    const extra = Buffer.from(snapshot.extraData ?? this.#usualExtraData(snapshot, place.size))
    const length = 40 + extra.length + id.length + name.length
    const entry = Buffer.alloc(Math.ceil(length / 8) * 8)
    entry.writeBigUInt64BE(BigInt(place.l1), 0)
    entry.writeUInt32BE(place.l1Length, 8)
    entry.writeUInt16BE(id.length, 12)
    entry.writeUInt16BE(name.length, 14)
    entry.writeUInt32BE(1_700_000_000, 16)
    entry.writeUInt32BE((snapshot.vmStateSize ?? 0) % 2 ** 32, 32)
    entry.writeUInt32BE(extra.length, 36)
    Buffer.concat([extra, id, name]).copy(entry, 40)
    return entry
  }

  #usualExtraData(snapshot: BuiltSnapshot, size: number): Uint8Array {
    if (this.spec.version === 2) return new Uint8Array()
    const extra = Buffer.alloc(24)
    extra.writeBigUInt64BE(BigInt(snapshot.vmStateSize ?? 0), 0)
    extra.writeBigUInt64BE(BigInt(size), 8)
    extra.writeBigUInt64BE(0xffffffffffffffffn, 16)
    return extra
  }

  /** Clears the copied flag of active entries whose cluster has come to be shared. */
  #setCopied(l1: number): void {
    for (const [index, table] of this.l2) {
      this.#dropCopiedIfShared(
        this.#cluster(l1 + Math.floor((index * 8) / this.clusterSize) * this.clusterSize),
        (index * 8) % this.clusterSize,
      )
      const isData = new Set(this.data.values())
      for (let at = 0; at < this.clusterSize; at += this.entrySize) {
        const offset = Number(this.#cluster(table).readBigUInt64BE(at) & 0x00fffffffffffe00n)
        if (isData.has(offset)) this.#dropCopiedIfShared(this.#cluster(table), at)
      }
    }
  }

  #dropCopiedIfShared(table: Buffer, at: number): void {
    const entry = table.readBigUInt64BE(at)
    const offset = Number(entry & 0x00fffffffffffe00n)
    if ((this.counts[offset / this.clusterSize] ?? 0) > 1) {
      table.writeBigUInt64BE(entry & ~COPIED, at)
    }
  }

  #fixRefcounts(refcountTable: number, blocks: readonly number[]): void {
    const bits = this.refcountBits
    const perBlock = (this.clusterSize * 8) / bits
    const table = Buffer.alloc(blocks.length * 8)
    for (const [i, block] of blocks.entries()) table.writeBigUInt64BE(BigInt(block), i * 8)
    this.#writeBytes(refcountTable, table)
    const stored: Record<number, number> = { ...this.counts, ...this.spec.refcounts }
    for (const [key, count] of Object.entries(stored)) {
      const cluster = Number(key)
      const block = this.#cluster(blocks[Math.floor(cluster / perBlock)]!)
      const index = cluster % perBlock
      if (bits >= 8) {
        const width = bits / 8
        for (let i = 0, rest = count; i < width; i++, rest = Math.floor(rest / 256)) {
          block[index * width + width - 1 - i] = rest % 256
        }
      } else {
        block[Math.floor((index * bits) / 8)]! |= count << ((index * bits) % 8)
      }
    }
  }

  #writeHeader(place: { l1: number; refcountTable: number; snapshotTable: number }): void {
    const { spec } = this
    const version = spec.version ?? 3
    const headerLength = version === 2 ? 72 : (spec.headerLength ?? 112)
    const area = this.#headerArea()
    const backingAt = headerLength + area.length
    const name = Buffer.from(spec.backing?.name ?? '')
    if (backingAt + name.length > this.clusterSize) throw new Error('the header does not fit')
    const fields: Partial<Record<HeaderField, number | bigint>> = {
      magic: 0x514649fb,
      version,
      backing_file_offset: name.length > 0 ? backingAt : 0,
      backing_file_size: name.length,
      cluster_bits: spec.clusterBits ?? 16,
      size: spec.size,
      l1_size: this.l1Length(spec.size),
      l1_table_offset: place.l1,
      refcount_table_offset: place.refcountTable,
      refcount_table_clusters:
        (this.#firstBlockOffset(place.refcountTable) - place.refcountTable) / this.clusterSize,
      nb_snapshots: spec.snapshots?.length ?? 0,
      snapshots_offset: place.snapshotTable,
      ...(version === 2
        ? {}
        : {
            incompatible_features: (spec.incompatible ?? 0) | (this.entrySize === 16 ? 16 : 0),
            compatible_features: spec.compatible ?? 0,
            autoclear_features: spec.autoclear ?? 0,
            refcount_order: spec.refcountOrder ?? 4,
            header_length: headerLength,
          }),
      ...spec.header,
    }
    const cluster = this.#cluster(0)
    area.copy(cluster, headerLength)
    name.copy(cluster, backingAt)
    for (const [field, value] of Object.entries(fields)) {
      const [offset, width] = HEADER_FIELDS[field as HeaderField]
      for (let i = 0, rest = BigInt(value); i < width; i++, rest >>= 8n) {
        cluster[offset + width - 1 - i] = Number(rest & 0xffn)
      }
    }
  }

  #firstBlockOffset(refcountTable: number): number {
    return Number(this.#cluster(refcountTable).readBigUInt64BE(0))
  }

  /** The header extensions with their end mark. */
  #headerArea(): Buffer {
    const format = this.spec.backing?.format
    const all = [
      ...(format === undefined
        ? []
        : [{ type: 'backing_format' as const, data: Buffer.from(format) }]),
      ...(this.spec.extensions ?? []),
      { type: 'end' as const, data: new Uint8Array() },
    ]
    return Buffer.concat(
      all.map(({ type, data }) => {
        const part = Buffer.alloc(8 + Math.ceil(data.length / 8) * 8)
        part.writeUInt32BE(typeof type === 'number' ? type : EXTENSIONS[type], 0)
        part.writeUInt32BE(data.length, 4)
        Buffer.from(data).copy(part, 8)
        return part
      }),
    )
  }
}

/** A cluster's worth of one byte. */
export function filled(byte: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(byte)
}
