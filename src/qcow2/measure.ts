/**
 * How much space a new image will take, as `qemu-img measure` reckons it: the size once everything is allocated,
 * and the size that the present content needs, which still counts the tables for everything.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { checkClusterSize, checkRefcountBits, type Preallocation } from './create-options.ts'
import { type BitmapRecord, bitmapBytes } from './layout/bitmap-directory.ts'
import { LIMIT, SECTOR_SIZE } from './layout/constants.ts'
import { geometryOf, l1EntriesFor } from './layout/geometry.ts'

/** What is asked of `measureQcow2`: the options of the new image, and what it is to hold. */
export interface MeasureOptions {
  /** Virtual size of the new image; not looked at where there is a `source`. */
  readonly size?: number | undefined
  /** What the new image is to hold: its size counts, and its extents. */
  readonly source?: Pick<BlockDevice, 'size' | 'extents'> | undefined
  /** Bitmaps that the source image has, where it can have any (version 3); measured for a version 3 target. */
  readonly bitmaps?: readonly Pick<BitmapRecord, 'name' | 'granularityBits' | 'inUse'>[] | undefined
  readonly version?: 2 | 3 | undefined
  readonly clusterSize?: number | undefined
  readonly refcountBits?: number | undefined
  readonly extendedL2?: boolean | undefined
  readonly preallocation?: Preallocation | undefined
  /** The new image gets a backing file: how much of the source that has in common is not known. */
  readonly backing?: boolean | undefined
  /** Bytes of the LUKS header of an encrypted image; see `luksHeaderLength`. */
  readonly luksHeaderLength?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** Bytes that a new image will take. */
export interface Measurement {
  /** For what the source holds now. */
  readonly required: number
  /** Once the guest has written everything. */
  readonly fullyAllocated: number
  /** For copies of the source's bitmaps, on top of both; undefined where there can be none. */
  readonly bitmaps: number | undefined
}

/** Measures a qcow2 image. Throws a UsageError with the text of `qemu-img` for options that cannot be. */
export async function measureQcow2(options: MeasureOptions): Promise<Measurement> {
  const { source, version = 3, extendedL2 = false } = options
  const clusterSize = options.clusterSize ?? 65536
  const refcountBits = options.refcountBits ?? 16
  checkClusterSize(clusterSize, extendedL2)
  checkRefcountBits(refcountBits, version, 'compat=1.1')
  const geometry = geometryOf({
    clusterBits: Math.log2(clusterSize),
    refcountOrder: Math.log2(refcountBits),
    extendedL2,
  })
  const asked = roundUp(checkedSize(options.size ?? 0), clusterSize)
  if (l1EntriesFor(asked, geometry) * 8 > LIMIT.l1Size) {
    throw new UsageError(
      'IMAGE_TOO_LARGE',
      'The image size is too large (try using a larger cluster size)',
      { context: { size: asked } },
    )
  }
  const size = source === undefined ? asked : roundUp(source.size, clusterSize)
  const luks = roundUp(options.luksHeaderLength ?? 0, clusterSize)
  const l2Clusters = l1EntriesFor(size, geometry)
  const dataClusters = size / clusterSize
  const others = 1 + divideUp(l2Clusters * 8, clusterSize) + l2Clusters + dataClusters
  const counted = withRefcounts(others, clusterSize, geometry.refcountsPerBlock)
  const fullyAllocated = luks + counted * clusterSize
  const data = await dataSize(options, size, clusterSize)
  return {
    required: fullyAllocated - size + data,
    fullyAllocated,
    bitmaps:
      version < 3 || source === undefined || options.bitmaps === undefined
        ? undefined
        : bitmapsSize(options.bitmaps, source.size, clusterSize),
  }
}

/** Measures a raw image: as long as the disk, whatever it holds. */
export function measureRaw(options: Pick<MeasureOptions, 'size' | 'source'>): Measurement {
  const { source } = options
  const size = source?.size ?? roundUp(checkedSize(options.size ?? 0), SECTOR_SIZE)
  return { required: size, fullyAllocated: size, bitmaps: undefined }
}

function checkedSize(size: number): number {
  if (Number.isSafeInteger(size) && size >= 0) return size
  throw new UsageError('INVALID_SIZE', `image size ${size} is no number of bytes below 2^53`)
}

/**
 * Clusters with their refcount blocks and table. Each round drops what it no longer needs, as in QEMU: the
 * figures of both agree even where a smaller fixed point exists.
 */
function withRefcounts(others: number, clusterSize: number, refcountsPerBlock: number): number {
  let count = 0
  let table = 0
  let blocks = 0
  for (;;) {
    blocks = divideUp(others + table + blocks, refcountsPerBlock)
    table = divideUp(blocks, clusterSize / 8)
    const next = others + blocks + table
    if (next === count) return count
    count = next
  }
}

/** Bytes of data clusters: every cluster of the new image in which the source has data counts once. */
async function dataSize(
  options: MeasureOptions,
  size: number,
  clusterSize: number,
): Promise<number> {
  const { source, preallocation } = options
  if (preallocation === 'full' || preallocation === 'falloc') return size
  if (source === undefined) return 0
  if (options.backing === true) return size
  let clusters = 0
  let offset = 0
  while (offset < source.size) {
    for (const extent of await source.extents(offset, source.size - offset)) {
      const end = extent.offset + extent.length
      // A cluster that the extent before has counted is behind us already.
      if (end <= offset) continue
      const start = Math.max(extent.offset, offset)
      offset = end
      if (extent.kind !== 'data') continue
      offset = roundUp(end, clusterSize)
      clusters += (offset - (start - (start % clusterSize))) / clusterSize
    }
    await breathe(options.signal)
  }
  return clusters * clusterSize
}

/** Bitmaps with every data cluster allocated, their tables, and one directory. */
function bitmapsSize(
  bitmaps: NonNullable<MeasureOptions['bitmaps']>,
  size: number,
  clusterSize: number,
): number {
  let total = 0
  let directory = 0
  for (const { name, granularityBits, inUse } of bitmaps) {
    if (inUse) continue
    const clusters = divideUp(bitmapBytes(size, granularityBits), clusterSize)
    total += clusters * clusterSize + roundUp(clusters * 8, clusterSize)
    directory += roundUp(24 + new TextEncoder().encode(name).length, 8)
  }
  return total + roundUp(directory, clusterSize)
}

/** Key bytes of the ciphers that LUKS headers are made with. */
const KEY_LENGTH: Readonly<Record<string, number>> = {
  'aes-128': 16,
  'aes-192': 24,
  'aes-256': 32,
  'cast5-128': 16,
  'serpent-128': 16,
  'serpent-192': 24,
  'serpent-256': 32,
  'twofish-128': 16,
  'twofish-192': 24,
  'twofish-256': 32,
}

/**
 * How long the LUKS header of an encrypted image is: eight slots, each with the key split into 4000 stripes.
 * `cipher` and `mode` are the values of `encrypt.cipher-alg` and `encrypt.cipher-mode`.
 */
export function luksHeaderLength(cipher = 'aes-256', mode = 'xts'): number {
  const keyLength = KEY_LENGTH[cipher]
  if (keyLength === undefined) {
    throw new UsageError(
      'INVALID_OPTION',
      `Parameter 'encrypt.cipher-alg' does not accept value '${cipher}'`,
    )
  }
  // XTS works with two keys.
  const slot = roundUp(keyLength * (mode === 'xts' ? 2 : 1) * 4000, 4096)
  return 4096 + 8 * slot
}
