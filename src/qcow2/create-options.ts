/**
 * What a new image can be asked for, and whether that can be. The refusals carry the texts of `qemu-img create`,
 * in its order, so that a command can print them as they are. Where things come to lie is in create-layout.ts.
 */

import { isPowerOfTwo, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { LIMIT, SECTOR_SIZE } from './layout/constants.ts'
import type { HeaderExtension } from './layout/extensions.ts'
import type { CompressionType } from './layout/header.ts'

/** How much of a new image is set aside at once: nothing, the tables, host space too, or written zeroes too. */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full'

/** What `createQcow2` makes. */
export interface CreateOptions extends LongWork {
  /** Virtual size; rounded up to whole sectors of 512 bytes. */
  readonly size: number
  /** 2 (compat 0.10) or 3 (compat 1.1), the default. */
  readonly version?: 2 | 3 | undefined
  /** A power of two from 512 B to 2 MiB; 64 KiB by default. */
  readonly clusterSize?: number | undefined
  /** 1, 2, 4, … 64; 16 by default. */
  readonly refcountBits?: number | undefined
  readonly extendedL2?: boolean | undefined
  readonly lazyRefcounts?: boolean | undefined
  readonly compressionType?: CompressionType | undefined
  /** Written into the header as it is; the file is not looked for. */
  readonly backing?: { readonly name: string; readonly format: string | undefined } | undefined
  /**
   * An external data file, named in the header. Where `device` is that file, open and empty, it gets its size
   * and its preallocation as well; it stays the caller's.
   */
  readonly dataFile?: DataFileOptions | undefined
  readonly preallocation?: Preallocation | undefined
  /** Header extensions that nobody needs to read the image; left out where the header cluster has little room. */
  readonly extensions?: readonly HeaderExtension[] | undefined
}

/** The external data file of a new image. */
export interface DataFileOptions {
  readonly name: string
  /** The data file must read as the raw disk at any time; gives the image all its tables at once. */
  readonly raw?: boolean | undefined
  readonly device?: BlockDevice | undefined
}

/** `CreateOptions` with every default filled in and every rule checked. */
export interface CreatePlan {
  readonly size: number
  readonly version: 2 | 3
  readonly clusterBits: number
  readonly refcountOrder: number
  readonly extendedL2: boolean
  readonly lazyRefcounts: boolean
  readonly compressionType: CompressionType
  readonly backing: CreateOptions['backing']
  readonly dataFile: DataFileOptions | undefined
  readonly preallocation: Preallocation
  readonly extensions: readonly HeaderExtension[]
}

/** The one text for sizes that the format (or this engine) cannot reach. */
export function imageTooLarge(size: number): UsageError {
  return new UsageError(
    'IMAGE_TOO_LARGE',
    "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    { context: { size } },
  )
}

const PREALLOCATIONS: readonly string[] = ['off', 'metadata', 'falloc', 'full']
const VERSION_3_NEEDED = 'compatibility level 1.1 and above (use version=v3 or greater)'

/** Fills in the defaults and refuses what cannot be. Throws a UsageError with the text of `qemu-img`. */
export function planCreate(options: CreateOptions): CreatePlan {
  const plan: CreatePlan = {
    size: checkedSize(options.size),
    version: options.version ?? 3,
    clusterBits: Math.log2(options.clusterSize ?? 65536),
    refcountOrder: Math.log2(options.refcountBits ?? 16),
    extendedL2: options.extendedL2 ?? false,
    lazyRefcounts: options.lazyRefcounts ?? false,
    compressionType: options.compressionType ?? 'zlib',
    backing: options.backing,
    dataFile: options.dataFile,
    preallocation: options.preallocation ?? 'off',
    extensions: options.extensions ?? [],
  }
  checkValues(plan)
  if (plan.extendedL2 && plan.version < 3) {
    throw new UsageError(
      'EXTENDED_L2',
      `Extended L2 entries are only supported with ${VERSION_3_NEEDED}`,
    )
  }
  checkClusterSize(options.clusterSize ?? 65536, plan.extendedL2)
  if (plan.backing !== undefined && plan.preallocation !== 'off' && !plan.extendedL2) {
    throw new UsageError(
      'PREALLOCATION',
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    )
  }
  if (plan.lazyRefcounts && plan.version < 3) {
    throw new UsageError('LAZY_REFCOUNTS', `Lazy refcounts only supported with ${VERSION_3_NEEDED}`)
  }
  checkRefcountBits(options.refcountBits ?? 16, plan.version, 'version=v3')
  checkDataFile(plan)
  if (plan.compressionType !== 'zlib' && plan.version < 3) {
    throw new UsageError(
      'COMPRESSION_TYPE',
      `Non-zlib compression type is only supported with ${VERSION_3_NEEDED}`,
    )
  }
  // A raw data file must read the same with and without the tables, so the tables have to be there.
  const raw = plan.dataFile?.raw === true && plan.preallocation === 'off'
  return raw ? { ...plan, preallocation: 'metadata' } : plan
}

function checkedSize(size: number): number {
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new UsageError(
      'INVALID_SIZE',
      'Invalid image size specified. Must be between 0 and 9223372036854775807.',
      { context: { size } },
    )
  }
  if (size > LIMIT.virtualSize) throw imageTooLarge(size)
  return roundUp(size, SECTOR_SIZE)
}

/** Values that the types forbid already, for callers without types. */
function checkValues(plan: CreatePlan): void {
  const refuse = (name: string, value: unknown) =>
    new UsageError('INVALID_OPTION', `Parameter '${name}' does not accept value '${value}'`, {
      context: { option: name, value: String(value) },
    })
  if (plan.version !== 2 && plan.version !== 3) throw refuse('version', plan.version)
  if (!PREALLOCATIONS.includes(plan.preallocation)) {
    throw refuse('preallocation', plan.preallocation)
  }
  if (plan.compressionType !== 'zlib' && plan.compressionType !== 'zstd') {
    throw refuse('compression-type', plan.compressionType)
  }
  const format = plan.backing?.format
  if (format !== undefined && (format === '' || format.length > LIMIT.backingFormatLength)) {
    throw refuse('backing-fmt', format)
  }
  if (plan.backing?.name === '') {
    throw new UsageError('BACKING_NAME', 'Expected backing file name, got empty string')
  }
}

/** Refuses cluster sizes that the format does not have; also for `measure`. */
export function checkClusterSize(clusterSize: number, extendedL2: boolean): void {
  const bits = Math.log2(clusterSize)
  const { minimumClusterBits, maximumClusterBits } = LIMIT
  if (!isPowerOfTwo(clusterSize) || bits < minimumClusterBits || bits > maximumClusterBits) {
    throw new UsageError(
      'CLUSTER_SIZE',
      'Cluster size must be a power of two between 512 and 2048k',
      { context: { clusterSize } },
    )
  }
  if (extendedL2 && clusterSize < 16384) {
    throw new UsageError(
      'EXTENDED_L2',
      'Extended L2 entries are only supported with cluster sizes of at least 16384 bytes',
      { context: { clusterSize } },
    )
  }
}

/** Refuses refcount widths that the format does not have; also for `measure`, which advises in other words. */
export function checkRefcountBits(
  refcountBits: number,
  version: 2 | 3,
  advice: 'version=v3' | 'compat=1.1',
): void {
  if (!isPowerOfTwo(refcountBits) || refcountBits > 64) {
    throw new UsageError(
      'REFCOUNT_WIDTH',
      'Refcount width must be a power of two and may not exceed 64 bits',
      { context: { refcountBits } },
    )
  }
  if (version < 3 && refcountBits !== 16) {
    throw new UsageError(
      'REFCOUNT_WIDTH',
      `Different refcount widths than 16 bits require compatibility level 1.1 or above (use ${advice} or greater)`,
      { context: { refcountBits } },
    )
  }
}

function checkDataFile(plan: CreatePlan): void {
  if (plan.dataFile === undefined) return
  if (plan.dataFile.raw === true && plan.backing !== undefined) {
    throw new UsageError(
      'DATA_FILE',
      'Backing file and data-file-raw cannot be used at the same time',
    )
  }
  if (plan.dataFile.name === '') {
    throw new UsageError('DATA_FILE', 'Expected data file name, got empty string')
  }
  if (plan.version < 3) {
    throw new UsageError(
      'DATA_FILE',
      `External data files are only supported with ${VERSION_3_NEEDED}`,
    )
  }
}
