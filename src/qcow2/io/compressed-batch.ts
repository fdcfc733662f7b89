/**
 * Reads of many compressed clusters: their packed bytes come by few reads of the file, and several
 * threads unpack, this one among them. What fails is told as if one cluster were read after the other.
 */

import { alignedBytes } from '../../base/aligned.ts'
import { breathe } from '../../base/breathe.ts'
import { loadPackage } from '../../base/load-package.ts'
import { type ClusterCodec, loadCodec } from '../../codec/index.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { type CompressedMapping, readCompressed } from './compressed.ts'

/** Packed bytes that are in memory for one read at a time. */
const PACKED_LIMIT = 1024 * 1024
/** Bytes between two clusters that are read with them rather than by two reads. */
const GAP_LIMIT = 16 * 1024
/** Buffers that stay for the next read. */
const IDLE_BUFFERS = 4

/** What a read wants of one compressed cluster: `target.length` bytes from `inCluster` on. */
interface Piece {
  readonly mapping: CompressedMapping
  readonly inCluster: number
  readonly target: Uint8Array
  /** Where its packed bytes begin in the buffer, and how many of them the file has. */
  readonly at: number
  readonly length: number
}

/** One read of the file. */
interface Run {
  readonly at: number
  readonly hostOffset: number
  length: number
}

/** Clusters that are being unpacked by other threads, for all images. */
let elsewhereCount = 0
/** As many as keep the other cores at work while this thread does something else. */
let elsewhereLimit: number | undefined

function limitElsewhere(): number {
  const { availableParallelism } = loadPackage('node:os') as typeof import('node:os')
  const otherCores = Math.min(availableParallelism() - 1, 4)
  return otherCores === 0 ? 0 : 4 + 4 * otherCores
}

const idleBuffers: Uint8Array[] = []

/** Gathers the compressed clusters of one read, in the order of the disk. */
export class CompressedBatch {
  readonly #state: Qcow2State
  #runs: Run[] = []
  #pieces: Piece[] = []
  #packed = 0

  constructor(state: Qcow2State) {
    this.#state = state
  }

  /** Takes one more; where that makes too many it reads those before it, and the caller must wait. */
  add(
    mapping: CompressedMapping,
    inCluster: number,
    target: Uint8Array,
  ): Promise<void> | undefined {
    if (this.#take(mapping, inCluster, target)) return undefined
    return this.flush().then(() => {
      if (this.#take(mapping, inCluster, target)) return undefined
      return readCompressed(this.#state, mapping, inCluster, target)
    })
  }

  /** Reads what was gathered. All is at rest when it settles. */
  async flush(): Promise<void> {
    const [runs, pieces] = [this.#runs, this.#pieces]
    this.#runs = []
    this.#pieces = []
    this.#packed = 0
    if (pieces.length === 0) return
    if (pieces.length === 1) {
      const { mapping, inCluster, target } = pieces[0]!
      return readCompressed(this.#state, mapping, inCluster, target)
    }
    const buffer = idleBuffers.pop() ?? alignedBytes(PACKED_LIMIT)
    try {
      if (await readRuns(this.#state, runs, buffer)) {
        await unpackAll(this.#state, pieces, buffer)
        return
      }
    } finally {
      if (idleBuffers.length < IDLE_BUFFERS) idleBuffers.push(buffer)
    }
    for (const { mapping, inCluster, target } of pieces) {
      await readCompressed(this.#state, mapping, inCluster, target)
    }
  }

  /** Gathers one more where there is room for it, and its place can be. */
  #take(mapping: CompressedMapping, inCluster: number, target: Uint8Array): boolean {
    const { hostOffset, compressedLength } = mapping
    // The last sector of the file need not be whole; what begins behind it is not read here.
    const length = Math.min(compressedLength, this.#state.host.size - hostOffset)
    if (length <= 0) return false
    let run = this.#runs.at(-1)
    let more = length
    const start = run === undefined ? 0 : hostOffset - run.hostOffset
    if (run !== undefined && start >= 0 && start <= run.length + GAP_LIMIT) {
      more = Math.max(0, start + length - run.length)
    } else {
      run = { at: this.#packed, hostOffset, length: 0 }
    }
    if (this.#packed + more > PACKED_LIMIT) return false
    if (run.length === 0) this.#runs.push(run)
    run.length += more
    this.#packed += more
    this.#pieces.push({
      mapping,
      inCluster,
      target,
      at: run.at + hostOffset - run.hostOffset,
      length,
    })
    return true
  }
}

/** Fills `buffer` as the runs say; false where some of it cannot be read. */
async function readRuns(
  state: Qcow2State,
  runs: readonly Run[],
  buffer: Uint8Array,
): Promise<boolean> {
  try {
    for (const { at, hostOffset, length } of runs) {
      await state.host.device.read(hostOffset, buffer.subarray(at, at + length))
    }
    return true
  } catch {
    // It may be a gap that cannot be read, so each cluster is read by itself then.
    return false
  }
}

/** Unpacks all; throws what the first of them throws that fails. */
async function unpackAll(
  state: Qcow2State,
  pieces: readonly Piece[],
  buffer: Uint8Array,
): Promise<void> {
  state.codec ??= await loadCodec(state.header.compressionType)
  const { codec } = state
  const { clusterSize } = state.geometry
  let failure: { readonly index: number; readonly error: unknown } | undefined
  const fail = (index: number, error: unknown): void => {
    if (failure === undefined || index < failure.index) failure = { index, error }
  }
  const under: Promise<void>[] = []
  const parts: { readonly piece: Piece; readonly bytes: Uint8Array }[] = []
  for (const [index, piece] of pieces.entries()) {
    const packed = buffer.subarray(piece.at, piece.at + piece.length)
    let bytes = piece.target
    if (bytes.length < clusterSize) {
      bytes = new Uint8Array(clusterSize)
      parts.push({ piece, bytes })
    }
    const begun = beginElsewhere(codec, packed, bytes)
    if (begun !== undefined) {
      under.push(begun.catch((error: unknown) => fail(index, error)))
    } else {
      try {
        codec.decompress(packed, bytes)
      } catch (error) {
        fail(index, error)
      }
      await (elsewhereCount === 0 ? breathe() : nextTurn())
    }
    // Whoever failed stands before all that have not begun.
    if (failure !== undefined) break
  }
  await Promise.all(under)
  if (failure !== undefined) throw failure.error
  for (const { piece, bytes } of parts) {
    const { inCluster, target, mapping } = piece
    target.set(bytes.subarray(inCluster, inCluster + target.length))
    state.unpacked = { hostOffset: mapping.hostOffset, bytes }
  }
}

/** Has another thread unpack, unless enough is under way there. */
function beginElsewhere(
  codec: ClusterCodec,
  packed: Uint8Array,
  target: Uint8Array,
): Promise<void> | undefined {
  elsewhereLimit ??= limitElsewhere()
  if (elsewhereCount >= elsewhereLimit || target.length < codec.elsewhereFrom) return undefined
  const begun = codec.decompressElsewhere?.(packed, target)
  if (begun === undefined) return undefined
  elsewhereCount++
  return begun.finally(() => elsewhereCount--)
}

/** Lets the loop hear which of the other threads are done. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
