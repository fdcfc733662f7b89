/**
 * Mutations of valid images that know the format: fields, entries and pointers are changed for others that mean something, clusters
 * and tables are moved over each other, and mostly the refcounts are made to fit again, so that damage lies deeper than the first
 * check. A mutation is a function of its seed.
 */

import { ImageBytes, tableOffset } from '../support/poke.ts'

/** A source of numbers that are the same for the same seed. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
    for (let round = 0; round < 4; round++) this.below(2)
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }

  /** One of a list. */
  one<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }
}

/** The image after one to four mutations. */
export function mutate(whole: Uint8Array, dice: Dice): Uint8Array {
  const image = new ImageBytes(whole)
  const count = 1 + dice.below(4)
  for (let step = 0; step < count; step++) dice.one(STEPS)(image, dice)
  if (dice.below(3) > 0) fixRefcounts(image)
  return image.bytes
}

type Step = (image: ImageBytes, dice: Dice) => void

const STEPS: readonly Step[] = [
  flipBits,
  setWord,
  setWord,
  setEntry,
  setEntry,
  copyEntry,
  copyEntry,
].concat([copyCluster, cut, setHeader, setHeader])

function flipBits(image: ImageBytes, dice: Dice): void {
  const at = placeIn(image, dice)
  image.bytes[at] = (image.bytes[at] as number) ^ (1 << dice.below(8))
}

/** Somewhere in the file, mostly in the first clusters, where the tables of small images lie. */
function placeIn(image: ImageBytes, dice: Dice): number {
  const { length } = image.bytes
  if (length === 0) return 0
  return dice.below(dice.below(4) === 0 ? length : Math.min(length, 8 * clusterOf(image)))
}

function clusterOf(image: ImageBytes): number {
  const bits = image.bytes.length < 24 ? 12 : image.bytes.readUInt32BE(20)
  return bits >= 9 && bits <= 21 ? 2 ** bits : 4096
}

function setWord(image: ImageBytes, dice: Dice): void {
  const width = dice.one([1, 2, 4, 8])
  const at = Math.floor(placeIn(image, dice) / width) * width
  put(image, at, width, interesting(image, dice))
}

function setHeader(image: ImageBytes, dice: Dice): void {
  put(image, 4 * dice.below(28), 4, interesting(image, dice))
}

/** An entry of 8 bytes of what looks like a table. */
function setEntry(image: ImageBytes, dice: Dice): void {
  const flags = dice.one([0n, 0n, 1n, 1n << 63n, (1n << 63n) | 1n, 1n << 62n, 1n << 57n])
  const cluster = BigInt(clusterOf(image))
  const clusterCount = BigInt(Math.ceil(image.bytes.length / Number(cluster)) + 2)
  const offset = BigInt(dice.below(Number(clusterCount))) * cluster
  put(image, entryAt(image, dice), 8, flags | offset)
}

function copyEntry(image: ImageBytes, dice: Dice): void {
  const from = entryAt(image, dice)
  const count = 1 + dice.below(dice.one([1, 1, 8, 64]))
  const to = entryAt(image, dice)
  if (Math.max(from, to) + 8 * count > image.bytes.length) return
  image.bytes.copyWithin(to, from, from + 8 * count)
}

/** Where an entry with something in it lies, if that is easily found. */
function entryAt(image: ImageBytes, dice: Dice): number {
  const { length } = image.bytes
  let at = 0
  for (let attempt = 0; attempt < 8; attempt++) {
    at = Math.floor(placeIn(image, dice) / 8) * 8
    if (at + 8 <= length && image.bytes.readUInt32BE(at + 4) !== 0) break
  }
  return at
}

function copyCluster(image: ImageBytes, dice: Dice): void {
  const cluster = clusterOf(image)
  const clusterCount = Math.floor(image.bytes.length / cluster)
  if (clusterCount === 0) return
  const from = cluster * dice.below(clusterCount)
  image.bytes.copyWithin(cluster * dice.below(clusterCount), from, from + cluster)
}

function cut(image: ImageBytes, dice: Dice): void {
  if (dice.below(4) > 0) return
  const unit = dice.one([1, 512, clusterOf(image)])
  const size = Math.min(image.bytes.length + 4 * unit, 2 ** 21)
  image.resize(unit * dice.below(Math.floor(size / unit) + 1))
}

function interesting(image: ImageBytes, dice: Dice): bigint {
  const cluster = BigInt(clusterOf(image))
  const file = BigInt(image.bytes.length)
  const base = dice.one([
    0n,
    1n,
    cluster,
    file,
    2n ** 31n,
    2n ** 32n,
    2n ** 53n,
    2n ** 56n,
    2n ** 63n,
  ])
  return base + BigInt(dice.below(5)) - 2n + cluster * BigInt(dice.below(3))
}

function put(image: ImageBytes, at: number, width: number, value: bigint): void {
  if (at + width <= image.bytes.length) image.set(at, width, value)
}

/** Stores for every cluster that a refcount block reaches how often it is referred to; gives up where the tables make no sense. */
export function fixRefcounts(image: ImageBytes): void {
  if (image.bytes.length < 512 || image.clusterSize !== clusterOf(image)) return
  try {
    const counts = countReferences(image)
    const clusterCount = Math.ceil(image.bytes.length / image.clusterSize)
    for (let cluster = 0; cluster < Math.min(clusterCount, 4096); cluster++) {
      image.setRefcount(cluster, Math.min(counts.get(cluster) ?? 0, 255))
    }
  } catch {
    // Damaged beyond repair is as good a case as any.
  }
}

function countReferences(image: ImageBytes): Map<number, number> {
  const counts = new Map<number, number>()
  const { clusterSize } = image
  const add = (offset: number, length: number): void => {
    const last = Math.floor((offset + Math.max(length, 1) - 1) / clusterSize)
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      if (cluster * clusterSize > image.bytes.length || counts.size > 4096) return
      counts.set(cluster, (counts.get(cluster) ?? 0) + 1)
    }
  }
  add(0, clusterSize)
  const refcounts = image.header('refcount_table_offset')
  const claimed = image.header('refcount_table_clusters') * clusterSize
  const tableSize = Math.min(claimed, Math.max(0, image.bytes.length - refcounts))
  add(refcounts, tableSize)
  for (let at = 0; at < tableSize; at += 8) {
    const block = tableOffset(image.get(refcounts + at, 8))
    if (block !== 0) add(block, clusterSize)
  }
  countL1(image, image.header('l1_table_offset'), image.header('l1_size'), add)
  const snapshotCount = Math.min(image.header('nb_snapshots'), 64)
  for (let index = 0; index < snapshotCount; index++) {
    const l1 = image.snapshot(index, 'l1_table_offset')
    countL1(image, l1, image.snapshot(index, 'l1_size'), add)
  }
  const snapshots = image.header('snapshots_offset')
  if (snapshotCount > 0) add(snapshots, image.snapshotAt(snapshotCount) - snapshots)
  return counts
}

function countL1(
  image: ImageBytes,
  offset: number,
  size: number,
  add: (offset: number, length: number) => void,
): void {
  const { clusterSize, l2EntrySize } = image
  let tableCount = 0
  if (size > 0) add(offset, size * 8)
  for (let index = 0; index < Math.min(size, 512); index++) {
    const l2 = tableOffset(image.get(offset + 8 * index, 8))
    if (l2 === 0 || l2 + clusterSize > image.bytes.length) continue
    add(l2, clusterSize)
    if (++tableCount > 64) throw new Error('too many tables')
    for (let at = l2; at < l2 + clusterSize; at += l2EntrySize) {
      const entry = image.bytes.readBigUInt64BE(at)
      if ((entry & (1n << 62n)) !== 0n) {
        const offsetBits = 62n - (BigInt(Math.log2(clusterSize)) - 8n)
        const start = Number(entry & ((1n << offsetBits) - 1n))
        const sectors = Number((entry & ((1n << 62n) - 1n)) >> offsetBits) + 1
        add(start, sectors * 512 - (start % 512))
      } else if (tableOffset(entry) !== 0) add(tableOffset(entry), clusterSize)
    }
  }
}
