/**
 * Compressed clusters: several lie in one host cluster, each from any byte to the end of some sector. The
 * refcount of a host cluster counts the entries whose data touches it.
 */

import { ImageError } from '../../base/errors.ts'
import { loadCodec } from '../../codec/index.ts'
import { compressedOffsetLimit } from '../layout/entries.ts'
import type { Mapping } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'

/** Below this a cluster is packed before another thread has begun with it. */
const LEAST_ELSEWHERE = 16384
/** From here on unpacking takes so long that it does not matter where it is done. */
const UNPACKED_ELSEWHERE = 262144
const PACKED_AT_A_TIME = 8

/** Where a compressed cluster lies. */
export type CompressedMapping = Extract<Mapping, { kind: 'compressed' }>

/** Reads part of a compressed cluster: `target.length` bytes from `inCluster` on. */
export async function readCompressed(
  state: Qcow2State,
  mapping: CompressedMapping,
  inCluster: number,
  target: Uint8Array,
): Promise<void> {
  const { hostOffset, compressedLength } = mapping
  let bytes = state.unpacked?.hostOffset === hostOffset ? state.unpacked.bytes : undefined
  if (bytes === undefined) {
    const { clusterSize } = state.geometry
    // Who reads all of it will not ask again.
    if (target.length === clusterSize) return unpack(state, hostOffset, compressedLength, target)
    bytes = new Uint8Array(clusterSize)
    await unpack(state, hostOffset, compressedLength, bytes)
    state.unpacked = { hostOffset, bytes }
  }
  target.set(bytes.subarray(inCluster, inCluster + target.length))
}

async function unpack(
  state: Qcow2State,
  offset: number,
  length: number,
  target: Uint8Array,
): Promise<void> {
  if (offset >= state.host.size) {
    throw new ImageError(
      'COMPRESSED_DATA',
      `compressed cluster at 0x${offset.toString(16)} of ${length} bytes lies outside the file`,
      { context: { structure: 'L2 table', offset, length } },
    )
  }
  state.codec ??= await loadCodec(state.header.compressionType)
  // The last sector of the file need not be whole.
  const packed = new Uint8Array(Math.min(length, state.host.size - offset))
  await state.host.device.read(offset, packed)
  const { codec } = state
  if (target.length < UNPACKED_ELSEWHERE || codec.decompressElsewhere === undefined) {
    codec.decompress(packed, target)
  } else {
    await codec.decompressElsewhere(packed, target)
  }
}

/** Packs one cluster, or answers undefined where that saves nothing. */
export async function pack(
  state: Qcow2State,
  cluster: Uint8Array,
): Promise<Uint8Array | undefined> {
  state.codec ??= await loadCodec(state.header.compressionType)
  const { codec, packing } = state
  if (cluster.length < LEAST_ELSEWHERE || codec.compressElsewhere === undefined) {
    return codec.compress(cluster)
  }
  // Each packing holds a quarter of a MiB of tables, so no more are under way than keep the cores busy.
  const slot = packing.count++ % PACKED_AT_A_TIME
  const mine = Promise.resolve(packing.slots[slot]).then(() => codec.compressElsewhere?.(cluster))
  packing.slots[slot] = mine.catch(() => {})
  return mine
}

/**
 * Finds room for `length` compressed bytes, behind the compressed cluster before it where it fits, and counts
 * the new reference on every host cluster it touches. The caller holds the mutex. Undefined where the host
 * offset would be too high for a compressed entry.
 */
export async function takeCompressed(
  state: Qcow2State,
  length: number,
): Promise<number | undefined> {
  const { allocator, refcounts } = state.writing
  const { clusterSize } = state.geometry
  let cursor = state.compressedCursor
  if (cursor !== undefined) {
    const count = await refcounts.get(Math.floor(cursor.offset / clusterSize))
    if (count === 0 || count >= refcounts.codec.maximum) cursor = undefined
  }
  if (cursor !== undefined && cursor.offset + length <= cursor.end) {
    await refcounts.change(Math.floor(cursor.offset / clusterSize), 1, 1)
    state.compressedCursor = { offset: cursor.offset + length, end: cursor.end }
    return cursor.offset
  }
  const run = await allocator.take(1)
  const rest = cursor?.end === run.offset && cursor.offset < cursor.end ? cursor : undefined
  const offset = rest?.offset ?? run.offset
  if (offset + length > compressedOffsetLimit(state.geometry)) {
    await allocator.giveBack(run.offset, 1)
    return undefined
  }
  // A run that goes on from the cluster before counts there too; the fresh cluster has the count 1 already.
  if (rest !== undefined) await refcounts.change(Math.floor(offset / clusterSize), 1, 1)
  state.compressedCursor = { offset: offset + length, end: run.offset + clusterSize }
  return offset
}

/** Takes back the references of compressed data that was never linked. The caller holds the mutex. */
export async function giveBackCompressed(
  state: Qcow2State,
  offset: number,
  length: number,
): Promise<void> {
  const { clusterSize } = state.geometry
  const first = Math.floor(offset / clusterSize)
  state.compressedCursor = undefined
  await state.writing.refcounts.change(
    first,
    Math.floor((offset + length - 1) / clusterSize) - first + 1,
    -1,
  )
  state.writing.allocator.freed(first)
}
