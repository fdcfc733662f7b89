/**
 * Copies what one or several devices read as into another image: into a new one (new-image.ts), or over one that exists. With
 * a backing file for the target only what differs from it is stored. Opening the sources and reading options is for the caller.
 */

import { alignedBytes } from '../base/aligned.ts'
import { isZero, rangesEqual, roundDown, roundUp } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import {
  type BlockDevice,
  beginRead,
  type CopyResult,
  copy,
  type Part,
  type PartSource,
  PartWalk,
  partsOf,
} from '../block/index.ts'
import type { Mapping, Qcow2Image } from '../qcow2/index.ts'
import { copyByHost, type HostCopySource } from './host-copy.ts'
import { type ImageLayout, NewImage, type NewImageOptions } from './new-image.ts'

/** For a qcow2 image; fewer chunks are less work. */
const LARGE_CHUNK = 2 * 1024 * 1024
/** For a raw disk: a file system that gives memory by the size of a write searches long for 2 MiB in one piece. */
const CHUNK_SIZE = 1024 * 1024
const IN_FLIGHT = 3
const PAGE_SIZE = 4096
/** How much is compressed at a time: at its end some core waits for the others. At least so many clusters. */
const PACKED_CHUNK = 8 * 1024 * 1024
const PACKED_AT_ONCE = 8

/** Where the bytes go. */
export interface ConvertTarget {
  readonly device: BlockDevice
  /** Whether it reads as zeroes wherever nothing was written, so that zeroes need no write. */
  readonly isZero: boolean
  /** Stores whole clusters compressed, in place of `device.write`; the unit in which `write` is called then. */
  readonly compress?: {
    readonly clusterSize: number
    write(offset: number, source: Uint8Array): Promise<void>
  }
}

/** What a copy may leave to the target's backing. */
export interface Unchanged {
  /** What the target reads as where it holds nothing. */
  readonly backing: BlockDevice
  /**
   * Where the source stands on the same backing: what its own layer holds. Then nothing needs to be compared; without it the
   * source is compared with `backing`.
   */
  readonly map?: (offset: number, length: number) => Promise<Mapping>
}

/** How a conversion goes. */
export interface ConvertOptions extends LongWork {
  /** The shortest run of zeroes, in bytes, that is not stored as data; 4096 where left out, 0 stores everything. */
  readonly sparseSize?: number
  readonly unchanged?: Unchanged | undefined
  /** What is to be copied, where the caller knows better than the source; `skip` stays as the target has it. */
  readonly parts?: PartSource | undefined
  /** How many chunks are under way at a time; with 1, writes come strictly in order. */
  readonly inFlight?: number
  /** Bytes a second that may be written; as many as possible where left out. */
  readonly rateLimit?: number | undefined
}

/** Copies `source` over the first bytes of the target, which must be large enough. Does not flush. */
export async function convertInto(
  source: BlockDevice,
  target: ConvertTarget,
  options: ConvertOptions = {},
): Promise<CopyResult> {
  const { sparseSize = 4096, unchanged, signal, onProgress } = options
  const parts = options.parts ?? (unchanged && changedParts(source, unchanged))
  const { compress, device } = target
  const store = compress === undefined ? undefined : inClusters(compress)
  const limited = options.rateLimit
    ? limitRate(store ?? ((offset, bytes) => device.write(offset, bytes)), options.rateLimit)
    : store
  const plainChunk = device.blockSizes.preferred > PAGE_SIZE ? LARGE_CHUNK : CHUNK_SIZE
  return copy(source, device, {
    // Zeroes inside a compressed cluster are compressed with it.
    zeroDetect: sparseSize === 0 ? 0 : Math.max(sparseSize, compress?.clusterSize ?? 0),
    targetIsZero: target.isZero && unchanged === undefined,
    chunkSize:
      compress === undefined
        ? plainChunk
        : Math.max(PACKED_CHUNK, PACKED_AT_ONCE * compress.clusterSize),
    // The clusters of one chunk keep all cores busy, and lie in the order in which they are handed over.
    inFlight: compress === undefined ? (options.inFlight ?? IN_FLIGHT) : 1,
    signal,
    onProgress,
    ...(limited === undefined ? {} : { write: limited }),
    ...(parts === undefined ? {} : { parts }),
  })
}

/** Creates an image as large as `source`, fills it and gives it its name; where it rejects nothing is left of it. */
export async function convertToNew(
  source: BlockDevice,
  target: Omit<NewImageOptions, 'size'>,
  options: ConvertOptions & {
    readonly compress?: boolean
    /**
     * Lets the host copy what it can of `source`, a whole disk, without a look for zeroes. Counts for nothing where clusters are
     * compressed, or have their places already.
     */
    readonly byHost?: HostCopySource | undefined
    /** What else belongs into a qcow2 image, once its content is there. */
    readonly complete?: ((image: Qcow2Image) => Promise<void>) | undefined
  } = {},
): Promise<CopyResult> {
  await using made = await NewImage.create({ ...target, size: source.size })
  const { image } = made
  const compress =
    options.compress === true && image !== undefined
      ? {
          clusterSize: image.geometry.clusterSize,
          write: (offset: number, bytes: Uint8Array) => image.writeCompressed(offset, bytes),
        }
      : undefined
  const canByHost = compress === undefined && !hasPlaces(target.layout)
  const byHostResult =
    canByHost && options.byHost ? await copyByHost(options.byHost, made, options) : undefined
  const result =
    byHostResult ??
    (await convertInto(
      source,
      { device: made.device, isZero: made.isZero, ...(compress === undefined ? {} : { compress }) },
      options,
    ))
  if (image !== undefined) await options.complete?.(image)
  await made.finish()
  return result
}

/** Whether the clusters of a qcow2 image are there before their data. */
function hasPlaces(layout: ImageLayout): boolean {
  return layout.format === 'qcow2' && (layout.options.preallocation ?? 'off') !== 'off'
}

/** Cuts a write into clusters, several of which are compressed at a time. */
export function inClusters({ clusterSize, write }: NonNullable<ConvertTarget['compress']>) {
  return async (offset: number, source: Uint8Array): Promise<void> => {
    const under: Promise<void>[] = []
    for (let at = 0; at < source.length; at += clusterSize) {
      under.push(write(offset + at, source.subarray(at, at + clusterSize)))
    }
    // All have ended before one is reported, so that no buffer is in use afterwards.
    const ends = await Promise.allSettled(under)
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }
}

function limitRate(
  write: (offset: number, source: Uint8Array) => Promise<void>,
  bytesPerSecond: number,
) {
  const start = performance.now()
  let promised = 0
  return async (offset: number, source: Uint8Array): Promise<void> => {
    promised += source.length
    const waitMs = (promised * 1000) / bytesPerSecond - (performance.now() - start)
    await write(offset, source)
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}

/** What of `source` the target does not have from its backing. */
function changedParts(source: BlockDevice, { backing, map }: Unchanged): PartSource {
  return map === undefined ? comparedParts(source, backing) : mappedParts(map, backing.size)
}

/** Source and target stand on the same backing: what the source's own layer does not hold is there already. */
function mappedParts(map: NonNullable<Unchanged['map']>, backingSize: number): PartSource {
  return async (offset, length) => {
    const mapping = await map(offset, length)
    const kind = mapping.kind === 'unallocated' ? 'skip' : mapping.kind === 'zero' ? 'zero' : 'data'
    // Past the end of the backing the target reads as zeroes by itself.
    const past = kind === 'zero' && offset >= backingSize
    const end =
      kind === 'zero' && !past
        ? Math.min(offset + mapping.length, backingSize)
        : offset + mapping.length
    return [{ offset, length: end - offset, kind: past ? 'skip' : kind }]
  }
}

/** What of `source` differs from `backing`, as `zero` or `data`, in pieces of 4 KiB; both are read where they can differ. */
export function comparedParts(source: BlockDevice, backing: BlockDevice): PartSource {
  const [ours, theirs] = [new FirstPart(source), new FirstPart(backing)]
  const buffers = [alignedBytes(CHUNK_SIZE), alignedBytes(CHUNK_SIZE)] as const
  return async (offset, length) => {
    const own = ours.known(offset) ?? (await ours.at(offset, length))
    const other = theirs.known(offset) ?? (await theirs.at(offset, length))
    const common = Math.min(own.length, other.length, length)
    if (own.kind !== 'data' && other.kind !== 'data') {
      return [{ offset, length: common, kind: 'skip' }]
    }
    const size = Math.min(common, CHUNK_SIZE - (offset % CHUNK_SIZE))
    const [a, b] = [buffers[0].subarray(0, size), buffers[1].subarray(0, size)]
    const readingOwn = readOrZero(source, own, a)
    if (readingOwn !== undefined) await readingOwn
    const readingOther = readOrZero(backing, other, b)
    if (readingOther !== undefined) await readingOther
    return unequalParts(offset, a, b)
  }
}

/** The part of a device at one place after another, behind its end a hole; the device is asked once for many parts. */
class FirstPart {
  readonly #device: BlockDevice
  #walk: PartWalk

  constructor(device: BlockDevice) {
    this.#device = device
    this.#walk = new PartWalk(partsOf(device), device.size)
  }

  /** What is known already of the part that begins at `offset`. */
  known(offset: number): Part | undefined {
    if (offset < this.#walk.position) {
      this.#walk = new PartWalk(partsOf(this.#device), this.#device.size)
    }
    this.#walk.moveTo(offset)
    return this.#walk.known()
  }

  /** As `known`, having asked; behind the end a hole of `length` bytes. */
  async at(offset: number, length: number): Promise<Part> {
    return this.known(offset) ?? (await this.#walk.peek()) ?? { offset, length, kind: 'hole' }
  }
}

function readOrZero(device: BlockDevice, part: Part, into: Uint8Array): Promise<void> | undefined {
  if (part.kind === 'data') return beginRead(device, part.offset, into)
  into.fill(0)
  return undefined
}

const GRANULE = 4096

/** Cuts a range into what is equal and what is not, in pieces of 4 KiB. */
function unequalParts(offset: number, ours: Uint8Array, theirs: Uint8Array): Part[] {
  const parts: Part[] = []
  let start = 0
  let kind: Part['kind'] | undefined
  /** What follows the last range is of that kind. */
  const add = (from: number, next: Part['kind']): void => {
    if (next === kind) return
    if (kind !== undefined) parts.push({ offset: offset + start, length: from - start, kind })
    start = from
    kind = next
  }
  // Most is equal, mostly: one look at much costs far less than many at little, and one that fails ends early; where all differs a
  // byte or two show it.
  const areEqual = (from: number, to: number): boolean =>
    ours[from] === theirs[from] &&
    ours[to - 1] === theirs[to - 1] &&
    rangesEqual(ours, from, theirs, from, to - from)
  const look = (from: number, to: number): void => {
    if (areEqual(from, to)) {
      add(from, 'skip')
      return
    }
    const half = roundDown(offset + from + (to - from) / 2, GRANULE)
    const middle =
      half > offset + from ? half - offset : roundUp(offset + from + 1, GRANULE) - offset
    if (middle >= to) {
      add(from, isZero(ours, from, to) ? 'zero' : 'data')
      return
    }
    look(from, middle)
    look(middle, to)
  }
  const { length } = ours
  look(0, length)
  if (kind !== undefined) parts.push({ offset: offset + start, length: length - start, kind })
  return parts
}
