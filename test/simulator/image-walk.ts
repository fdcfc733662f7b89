/**
 * The fast check: walks one image in one state by the simulator's own reading of the format, counts every reference, compares
 * refcounts and copied flags, and collects what each view reads. Checked itself against the engine and qemu-img.
 */

import type { FileState } from './file-state.ts'
import type { ParsedHeader } from './parsed-header.ts'
import { KIND, L2_STRIDE, type ParsedTables } from './parsed-tables.ts'
import { mix, SECTOR_SIZE, UNALLOCATED } from './sector.ts'

/** What a view reads: a hash for each sector, `UNALLOCATED` where that is for the backing to say. */
export interface WalkedView {
  readonly label: string
  readonly size: number
  readonly contents: Int32Array
}

/** A bitmap with a hash of its bits, and the bits when somebody asks. */
export interface WalkedBitmap {
  readonly name: string
  readonly inUse: boolean
  readonly auto: boolean
  readonly granularityBits: number
  readonly hash: number
  readonly bits: () => Uint8Array
}

/** What the walk through an image found. */
export interface WalkedImage {
  /** Undefined where the file is no image that opens. */
  readonly header: ParsedHeader | undefined
  readonly problems: readonly string[]
  readonly leaks: number
  /** The active disk first. */
  readonly views: readonly WalkedView[]
  readonly bitmaps: readonly WalkedBitmap[]
  /** A number for everything that a reader can reach; the rest of the file makes no difference to anybody. */
  readonly reach: number
}

/** What a cluster is used for. */
const USE = { none: 0, single: 1, l2: 2, data: 3 } as const
const NAMES = ['nothing', 'metadata', 'L2 table', 'data']
const PROBLEM_LIMIT = 4

/** Walks through the image in `file`. */
export function walkImage(
  file: FileState,
  tables: ParsedTables,
  data: FileState | undefined,
): WalkedImage {
  const parsed = tables.header(file)
  if (!parsed.ok) return noImage(parsed.reason)
  const { header } = parsed
  if (2 ** header.clusterBits !== file.clusterSize) return noImage('other cluster size')
  return new ImageWalk(file, tables, header, data).run()
}

function noImage(reason: string): WalkedImage {
  return {
    header: undefined,
    problems: [`cannot be opened: ${reason}`],
    leaks: 0,
    views: [],
    bitmaps: [],
    reach: 0,
  }
}

class ImageWalk {
  readonly #file: FileState
  readonly #tables: ParsedTables
  readonly #header: ParsedHeader
  readonly #data: FileState | undefined
  readonly #clusterSize: number
  readonly #clusterCount: number
  readonly #counts: Int32Array
  readonly #uses: Uint8Array
  readonly #refcounts: Float64Array
  readonly #problems: string[] = []

  constructor(
    file: FileState,
    tables: ParsedTables,
    header: ParsedHeader,
    data: FileState | undefined,
  ) {
    this.#file = file
    this.#tables = tables
    this.#header = header
    this.#data = data
    this.#clusterSize = file.clusterSize
    this.#clusterCount = file.clusterCount
    this.#counts = new Int32Array(this.#clusterCount)
    this.#uses = new Uint8Array(this.#clusterCount)
    this.#refcounts = new Float64Array(this.#clusterCount)
  }

  run(): WalkedImage {
    const header = this.#header
    if (header.isCorrupt) this.#bad('corrupt bit is set')
    this.#use(0, USE.single, 'header')
    this.#readRefcounts()
    const views = [this.#view('active', header.l1Offset, header.l1Size, header.size, true)]
    views.push(...this.#snapshotViews())
    const bitmaps = this.#bitmaps()
    const leaks = header.isDirty ? 0 : this.#compare()
    return {
      header,
      problems: this.#problems,
      leaks,
      views,
      bitmaps,
      reach: this.#reach(),
    }
  }

  #bad(problem: string): void {
    if (this.#problems.length < PROBLEM_LIMIT) this.#problems.push(problem)
  }

  /** Counts a reference to the cluster at `offset`; false where there can be none. */
  #use(offset: number, use: number, what: string): boolean {
    const cluster = offset / this.#clusterSize
    if (!Number.isInteger(cluster)) {
      this.#bad(`${what} at 0x${offset.toString(16)} is not aligned`)
      return false
    }
    if (cluster >= this.#clusterCount) {
      this.#bad(`${what} at 0x${offset.toString(16)} lies past the end of the file`)
      return false
    }
    const old = this.#uses[cluster] as number
    if (old !== USE.none && (old !== use || use === USE.single)) {
      this.#bad(`${what} at 0x${offset.toString(16)} lies on ${NAMES[old]}`)
    }
    this.#uses[cluster] = use
    this.#counts[cluster] = (this.#counts[cluster] as number) + 1
    return true
  }

  #useRange(offset: number, length: number, what: string): boolean {
    for (let at = 0; at < length; at += this.#clusterSize) {
      if (!this.#use(offset + at, USE.single, what)) return false
    }
    return true
  }

  #readRefcounts(): void {
    const { refcountTableOffset, refcountTableClusters, refcountBits } = this.#header
    const size = this.#clusterSize
    if (!this.#useRange(refcountTableOffset, refcountTableClusters * size, 'refcount table')) return
    const perBlock = (size * 8) / refcountBits
    const perCluster = size / 8
    for (let part = 0; part < refcountTableClusters; part++) {
      const { entries } = this.#tables.offsets(this.#file, refcountTableOffset / size + part)
      for (let at = 0; at < entries.length; at += 4) {
        const block = part * perCluster + (entries[at] as number)
        const offset = entries[at + 1] as number
        if (!this.#use(offset, USE.single, 'refcount block')) continue
        const list = this.#tables.refcounts(this.#file, offset / size, refcountBits)
        for (let entry = 0; entry < list.length; entry += 2) {
          const cluster = block * perBlock + (list[entry] as number)
          if (cluster < this.#clusterCount) this.#refcounts[cluster] = list[entry + 1] as number
        }
      }
    }
  }

  #view(
    label: string,
    offset: number,
    l1Size: number,
    diskSize: number,
    isActive: boolean,
  ): WalkedView {
    const sectorCount = Math.floor(diskSize / SECTOR_SIZE)
    const contents = new Int32Array(sectorCount)
    // Without a backing what is nowhere reads as zeroes.
    if (this.#header.backing !== undefined) contents.fill(UNALLOCATED)
    const view = { label, size: diskSize, contents }
    const size = this.#clusterSize
    if (l1Size === 0 || !this.#useRange(offset, l1Size * 8, 'L1 table')) return view
    const entrySize = this.#header.extendedL2 ? 16 : 8
    const reach = (size / entrySize) * this.#file.sectorsPerCluster
    for (let part = 0; part * size < l1Size * 8; part++) {
      const { entries } = this.#tables.offsets(this.#file, offset / size + part)
      for (let at = 0; at < entries.length; at += 4) {
        const index = part * (size / 8) + (entries[at] as number)
        if (index >= l1Size) break
        if (entries[at + 3] !== 0) this.#bad('reserved bits in L1 entry')
        const table = entries[at + 1] as number
        if (!this.#use(table, USE.l2, 'L2 table')) continue
        if (isActive) this.#checkCopied(table / size, entries[at + 2] as number, 'L1 entry')
        this.#readL2(table / size, index * reach, contents, isActive)
      }
    }
    return view
  }

  #readL2(cluster: number, base: number, contents: Int32Array, isActive: boolean): void {
    const { extendedL2, version, externalData } = this.#header
    const { entries, error } = this.#tables.l2(this.#file, cluster, extendedL2, version)
    if (error !== undefined) this.#bad(error)
    const per = this.#file.sectorsPerCluster
    for (let at = 0; at < entries.length; at += L2_STRIDE) {
      const first = base + (entries[at] as number) * per
      const kind = entries[at + 1] as number
      const offset = entries[at + 2] as number
      if (kind === KIND.compressed) {
        this.#compressed(offset, entries[at + 4] as number, first, contents)
        continue
      }
      // In a file of its own data may begin at 0.
      if (offset === 0 && !externalData && kind === KIND.subclusters && entries[at + 5] !== 0) {
        this.#bad('subclusters allocated without a cluster')
      }
      if (offset !== 0 && !externalData) {
        if (!this.#use(offset, USE.data, 'data cluster')) continue
        if (isActive) {
          this.#checkCopied(offset / this.#clusterSize, entries[at + 3] as number, 'L2 entry')
        }
      }
      if (kind === KIND.normal) this.#copy(contents, first, offset, 0, per)
      else if (kind === KIND.zero) this.#zero(contents, first, per)
      else {
        this.#subclusters(contents, first, offset, [
          entries[at + 4] as number,
          entries[at + 5] as number,
        ])
      }
    }
  }

  #copy(contents: Int32Array, first: number, offset: number, from: number, count: number): void {
    const source = (this.#header.externalData ? this.#data : this.#file)?.contents
    const start = offset / SECTOR_SIZE + from
    const end = Math.min(count, contents.length - first - from)
    if (source === undefined) return
    for (let index = 0; index < end; index++) {
      contents[first + from + index] = source[start + index] ?? 0
    }
  }

  #zero(contents: Int32Array, first: number, count: number): void {
    contents.fill(0, first, Math.min(contents.length, first + count))
  }

  #subclusters(
    contents: Int32Array,
    first: number,
    offset: number,
    [zeroes, allocated]: readonly [number, number],
  ): void {
    const per = this.#file.sectorsPerCluster / 32
    for (let index = 0; index < 32; index++) {
      if (((allocated >>> index) & 1) === 1) this.#copy(contents, first, offset, index * per, per)
      else if (((zeroes >>> index) & 1) === 1) this.#zero(contents, first + index * per, per)
    }
  }

  #compressed(offset: number, sectorCount: number, first: number, contents: Int32Array): void {
    const size = this.#clusterSize
    const end = (Math.floor(offset / SECTOR_SIZE) + sectorCount) * SECTOR_SIZE
    for (let at = offset - (offset % size); at < end; at += size) {
      // The last sectors that an entry names may lie behind what was stored.
      if (at >= this.#clusterCount * size && at > offset) break
      this.#use(at, USE.data, 'compressed data')
    }
    const plain = this.#tables.compressed(this.#file, offset, sectorCount, this.#header.zstd)
    if (plain === undefined) {
      this.#bad(`compressed cluster at 0x${offset.toString(16)} cannot be read`)
      return
    }
    const count = Math.min(plain.length, contents.length - first)
    for (let index = 0; index < count; index++) contents[first + index] = plain[index] as number
  }

  #checkCopied(cluster: number, copied: number, what: string): void {
    if (this.#header.isDirty) return
    if ((this.#refcounts[cluster] === 1) === (copied === 1)) return
    this.#bad(
      `${what} for cluster ${cluster}: copied flag ${copied}, refcount ${this.#refcounts[cluster]}`,
    )
  }

  #snapshotViews(): WalkedView[] {
    const { snapshotCount, snapshotsOffset, size } = this.#header
    if (snapshotCount === 0) return []
    if (snapshotsOffset >= this.#file.length) {
      this.#bad('snapshot table lies past the end of the file')
      return []
    }
    const { items, length, error } = this.#tables.snapshots(
      this.#file,
      snapshotsOffset,
      snapshotCount,
    )
    if (error !== undefined) this.#bad(error)
    this.#useRange(snapshotsOffset, length, 'snapshot table')
    return items.map(({ label, l1Offset, l1Size, diskSize }) =>
      this.#view(`snapshot ${label}`, l1Offset, l1Size, diskSize ?? size, false),
    )
  }

  #bitmaps(): WalkedBitmap[] {
    const { bitmaps } = this.#header
    if (bitmaps === undefined) return []
    if (!this.#useRange(bitmaps.offset, bitmaps.size, 'bitmap directory')) return []
    const { items, error } = this.#tables.bitmaps(
      this.#file,
      bitmaps.offset,
      bitmaps.size,
      bitmaps.count,
    )
    if (error !== undefined) this.#bad(error)
    return items.map((item) => {
      const { name, inUse, auto, granularityBits, tableOffset, tableSize } = item
      const places = this.#bitmapPlaces(tableOffset, tableSize)
      let hash = mix(tableSize, granularityBits)
      places.forEach((place, index) => {
        const own = place > 1 ? (this.#file.clusterA[place / this.#clusterSize] ?? 0) : place
        hash ^= mix(index, own)
      })
      const bits = () => this.#bitmapBits(places)
      return { name, inUse, auto, granularityBits, hash, bits }
    })
  }

  /** For each cluster of bits where it lies; 0 for zeroes, 1 for ones. */
  #bitmapPlaces(offset: number, count: number): number[] {
    const places = new Array<number>(count).fill(0)
    if (!this.#useRange(offset, count * 8, 'bitmap table')) return places
    const size = this.#clusterSize
    for (let part = 0; part * size < count * 8; part++) {
      const { entries } = this.#tables.offsets(this.#file, offset / size + part)
      for (let at = 0; at < entries.length; at += 4) {
        const index = part * (size / 8) + (entries[at] as number)
        if (index >= count) break
        const place = entries[at + 1] as number
        places[index] = place === 0 ? (entries[at + 3] as number) % 2 : place
        if (place !== 0 && !this.#use(place, USE.single, 'bitmap data')) places[index] = 0
      }
    }
    return places
  }

  #bitmapBits(places: readonly number[]): Uint8Array {
    const size = this.#clusterSize
    const bits = new Uint8Array(places.length * size)
    for (const [index, place] of places.entries()) {
      if (place === 1) bits.fill(255, index * size, (index + 1) * size)
      else if (place > 1) bits.set(this.#file.bytes(place, size), index * size)
    }
    return bits
  }

  /** Compares counts with references; returns the leaks. */
  #compare(): number {
    let leaks = 0
    for (let cluster = 0; cluster < this.#clusterCount; cluster++) {
      const references = this.#counts[cluster] as number
      const count = this.#refcounts[cluster] as number
      if (references === count) continue
      if (references < count) leaks++
      else this.#bad(`cluster ${cluster}: refcount ${count}, ${references} references`)
    }
    return leaks
  }

  #reach(): number {
    let [a, b] = [mix(7, this.#file.length), mix(9, this.#file.length)]
    for (let cluster = 0; cluster < this.#clusterCount; cluster++) {
      if (this.#uses[cluster] === USE.none) continue
      a ^= mix(cluster, this.#file.clusterA[cluster] as number)
      b ^= mix(cluster, this.#file.clusterB[cluster] as number)
    }
    return (a >>> 0) * 0x200000 + (b >>> 11)
  }
}
