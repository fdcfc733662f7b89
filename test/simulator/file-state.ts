/**
 * A file as a power cut may leave it: a sector after the other can be exchanged, and hashes of each cluster and of the whole
 * are kept up to date meanwhile, so that a state costs what differs from the one before.
 */

import { cutSector } from './recorded-file.ts'
import { joined, mix, SECTOR_SIZE, type Sector, sectorOf, ZERO } from './sector.ts'

/** Odd numbers whose powers weigh the sectors of a cluster. */
const WEIGHT_A = 0x2c1b3c6d
const WEIGHT_B = 0x297a2d39

/** The sectors of one file, with hashes. */
export class FileState {
  readonly id: number
  readonly sectorsPerCluster: number
  readonly sectors: Sector[]
  /** The first hash of each sector: what a view is made of. */
  readonly contents: Int32Array
  readonly clusterA: Int32Array
  readonly clusterB: Int32Array
  length = 0
  readonly #weightA: Int32Array
  readonly #weightB: Int32Array
  #a = 0
  #b = 0

  /** All zeroes and empty, with room for `sectorCount` sectors. */
  constructor(id: number, sectorCount: number, sectorsPerCluster: number) {
    this.id = id
    this.sectorsPerCluster = sectorsPerCluster
    const clusterCount = Math.ceil(sectorCount / sectorsPerCluster) + 1
    this.sectors = new Array<Sector>(clusterCount * sectorsPerCluster).fill(ZERO)
    this.contents = new Int32Array(clusterCount * sectorsPerCluster)
    this.clusterA = new Int32Array(clusterCount)
    this.clusterB = new Int32Array(clusterCount)
    this.#weightA = powers(WEIGHT_A, sectorsPerCluster)
    this.#weightB = powers(WEIGHT_B, sectorsPerCluster)
  }

  get clusterSize(): number {
    return this.sectorsPerCluster * SECTOR_SIZE
  }

  /** How many clusters the file reaches into. */
  get clusterCount(): number {
    return Math.ceil(this.length / this.clusterSize)
  }

  set(index: number, sector: Sector): void {
    const old = this.sectors[index] as Sector
    if (old === sector) return
    this.sectors[index] = sector
    this.contents[index] = sector.a
    this.#a ^= mix(index, old.a) ^ mix(index, sector.a)
    this.#b ^= mix(index, old.b) ^ mix(index, sector.b)
    const cluster = Math.floor(index / this.sectorsPerCluster)
    const place = index - cluster * this.sectorsPerCluster
    this.clusterA[cluster] =
      (this.clusterA[cluster] as number) +
      Math.imul(this.#weightA[place] as number, sector.a - old.a)
    this.clusterB[cluster] =
      (this.clusterB[cluster] as number) +
      Math.imul(this.#weightB[place] as number, sector.b - old.b)
  }

  /** Exchanges a sector in which the file ends, or that lies behind its end. */
  setWithin(index: number, sector: Sector, length: number): void {
    const at = index * SECTOR_SIZE
    if (at >= length) this.set(index, ZERO)
    else if (at + SECTOR_SIZE <= length || sector === ZERO) this.set(index, sector)
    else this.set(index, sectorOf(cutSector(sector, length - at)))
  }

  /** A number for what the file holds. */
  get key(): number {
    return joined(this.#a ^ mix(1, this.length), this.#b ^ mix(2, this.length))
  }

  /** A number for what one cluster holds. */
  clusterKey(cluster: number): number {
    return joined(this.clusterA[cluster] ?? 0, this.clusterB[cluster] ?? 0)
  }

  /** Bytes of the file; zeroes behind its end. */
  bytes(offset: number, length: number): Uint8Array {
    const target = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const at = offset + done
      const start = at % SECTOR_SIZE
      const count = Math.min(SECTOR_SIZE - start, length - done)
      const sector = this.sectors[Math.floor(at / SECTOR_SIZE)] ?? ZERO
      target.set(sector.bytes.subarray(start, start + count), done)
      done += count
    }
    return target
  }
}

function powers(base: number, count: number): Int32Array {
  const list = new Int32Array(count)
  for (let index = 0, value = 1; index < count; index++) {
    list[index] = value
    value = Math.imul(value, base)
  }
  return list
}
