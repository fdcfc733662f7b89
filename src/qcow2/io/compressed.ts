/**
 * Compressed clusters: several lie in one host cluster, each from any byte to the end of some sector. The
 * refcount of a host cluster counts the entries whose data touches it.
 */

import { ImageError } from '../../base/errors.ts'
import { loadCodec } from '../../codec/index.ts'
import { compressedOffsetLimit } from '../layout/entries.ts'
import type { Mapping } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'

/** Reads part of a compressed cluster: `target.length` bytes from `inCluster` on. */
export async function readCompressed(
  state: Qcow2State,
  mapping: Extract<Mapping, { kind: 'compressed' }>,
  inCluster: number,
  target: Uint8Array,
): Promise<void> {
  const { hostOffset, compressedLength } = mapping
  let bytes = state.unpacked?.hostOffset === hostOffset ? state.unpacked.bytes : undefined
  if (bytes === undefined) {
    bytes = await unpack(state, hostOffset, compressedLength)
    state.unpacked = { hostOffset, bytes }
  }
  target.set(bytes.subarray(inCluster, inCluster + target.length))
}

async function unpack(state: Qcow2State, offset: number, length: number): Promise<Uint8Array> {
  const { clusterSize } = state.geometry
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
  const bytes = new Uint8Array(clusterSize)
  state.codec.decompress(packed, bytes)
  return bytes
}

/** Packs one cluster, or answers undefined where that saves nothing. */
export async function pack(
  state: Qcow2State,
  cluster: Uint8Array,
): Promise<Uint8Array | undefined> {
  state.codec ??= await loadCodec(state.header.compressionType)
  return state.codec.compress(cluster)
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
