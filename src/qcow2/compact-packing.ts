/**
 * New places for compressed data. Each piece keeps its position within a sector, so that its entry covers as many
 * bytes as before; pieces that lay close together stay so, and one goes on into the next cluster where that is
 * free. The refcount of a cluster never exceeds what its width can hold.
 */

import type { Blob } from './compact-entries.ts'
import { SECTOR_SIZE } from './layout/constants.ts'
import { compressedOffsetLimit } from './layout/entries.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { Transaction } from './metadata/transaction.ts'

/** Room that was taken: bytes from `at` to `end` are free, and all in consecutive clusters. */
interface Room {
  at: number
  end: number
  /** Clusters before this one count a piece already; those from it on count 1 for being taken. */
  fresh: number
}

/**
 * Takes clusters for `blobs`, sets their targets, and moves the references over. False where they do not fit below
 * host cluster `limit`; then the transaction must not be committed.
 */
export async function placeBlobs(
  state: Qcow2State,
  transaction: Transaction,
  blobs: readonly Blob[],
  limit: number,
): Promise<boolean> {
  const { clusterSize } = state.geometry
  const end = Math.min(limit * clusterSize, compressedOffsetLimit(state.geometry))
  let room: Room | undefined
  let last: Blob | undefined
  for (const blob of blobs) {
    const follows = last !== undefined && blob.offset <= last.offset + last.length
    if (room !== undefined && last !== undefined && follows) {
      room.at = last.target + blob.offset - last.offset
    }
    const next: Room | undefined = await makeRoom(state, transaction, blob, room, end)
    if (next === undefined) return false
    room = next
    blob.target = align(room.at, blob.offset)
    await count(state, transaction, blob, room)
    room.at = blob.target + blob.length
    last = blob
  }
  return true
}

/** The first position at or after `at` that lies within its sector as `like` does. */
function align(at: number, like: number): number {
  return at + ((((like - at) % SECTOR_SIZE) + SECTOR_SIZE) % SECTOR_SIZE)
}

/** Room that holds all of `blob`: the old one, made longer where the next cluster is free, or another. */
async function makeRoom(
  state: Qcow2State,
  transaction: Transaction,
  blob: Blob,
  old: Room | undefined,
  end: number,
): Promise<Room | undefined> {
  const { clusterSize } = state.geometry
  let room = old
  if (room !== undefined) {
    const first = Math.floor(align(room.at, blob.offset) / clusterSize)
    const isShared = first < room.fresh
    const { maximum } = state.writing.refcounts.codec
    if (isShared && (await transaction.count(first)) + blob.weight > maximum) {
      // The next piece begins in the next cluster, which may be taken already.
      room = { ...room, at: room.fresh * clusterSize }
    }
  }
  while (room === undefined || align(room.at, blob.offset) + blob.length > room.end) {
    const offset = await transaction.take(1)
    if (offset + clusterSize > end) return undefined
    if (room !== undefined && offset === room.end) {
      room = { ...room, end: offset + clusterSize }
      continue
    }
    if (room !== undefined) await giveBack(transaction, room, clusterSize)
    room = { at: offset, end: offset + clusterSize, fresh: offset / clusterSize }
  }
  return room
}

/** Lets go of clusters that were taken and hold nothing. */
async function giveBack(transaction: Transaction, room: Room, clusterSize: number): Promise<void> {
  const unused = room.end / clusterSize - room.fresh
  if (unused > 0) await transaction.change(room.fresh, unused, -1)
}

/** Moves the references of `blob` from its old clusters to those of its target. */
async function count(
  state: Qcow2State,
  transaction: Transaction,
  blob: Blob,
  room: Room,
): Promise<void> {
  const { clusterSize } = state.geometry
  const range = (offset: number) => {
    const first = Math.floor(offset / clusterSize)
    return { first, end: Math.floor((offset + blob.length - 1) / clusterSize) + 1 }
  }
  const target = range(blob.target)
  for (let cluster = target.first; cluster < target.end; cluster++) {
    const missing = cluster >= room.fresh ? blob.weight - 1 : blob.weight
    for (let index = 0; index < missing; index++) await transaction.change(cluster, 1, 1)
  }
  if (target.first > room.fresh) {
    await transaction.change(room.fresh, target.first - room.fresh, -1)
  }
  room.fresh = Math.max(room.fresh, target.end)
  const source = range(blob.offset)
  for (let index = 0; index < blob.weight; index++) {
    await transaction.change(source.first, source.end - source.first, -1)
  }
}
