/** The options of `convert`, and the checks that need no image; the order of checks and their words are qemu-img's. */

import { UsageError } from '../../base/errors.ts'
import type { ImageLayout } from '../../chain/index.ts'
import { type OptionValues, text, texts, toggle } from '../options.ts'
import {
  type CreateValues,
  createFormat,
  qcow2Wish,
  rawPreallocation,
  readCreateValues,
} from './create-options.ts'
import type { CreateFormat } from './create-table.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { checkCacheMode, type SnapshotWish, sizeArgument, snapshotWish } from './source-options.ts'
import { untrustedOptions } from './untrusted-options.ts'
import { overwriteOptions } from './views-options.ts'

/** The option table. */
export const convertOptions = {
  format: text({
    flags: '-f --source-format',
    placeholder: 'format',
    summary: 'format of the sources',
  }),
  targetFormat: text({
    flags: '-O --target-format',
    placeholder: 'format',
    summary: 'format of the target: raw (default) or qcow2',
  }),
  lists: texts({
    flags: '-o --target-format-options --options',
    placeholder: 'key=value,…',
    summary: 'options of the new image; -o help lists them',
  }),
  compress: toggle({ flags: '-c --compress', summary: 'compress the clusters of a qcow2 target' }),
  sparse: text({
    flags: '-S --sparse-size',
    placeholder: 'size',
    summary: 'shortest run of zeroes that is not stored (4k); 0 stores everything',
  }),
  snapshot: text({
    flags: '-l --snapshot',
    placeholder: 'snapshot',
    summary: 'read this internal snapshot, by id or name',
  }),
  snapshots: toggle({
    flags: '--snapshots',
    summary: 'copy the internal snapshots as well, from qcow2 to qcow2',
  }),
  backing: text({
    flags: '-B -b --backing',
    placeholder: 'file',
    summary: 'backing file of the target; only what differs from it is stored',
  }),
  backingFormat: text({
    flags: '-F --backing-format',
    placeholder: 'format',
    summary: 'format of the backing file',
  }),
  noCreate: toggle({ flags: '-n --no-create', summary: 'write into a target that exists' }),
  targetIsZero: toggle({
    flags: '--target-is-zero',
    summary: 'with -n: the target reads as zeroes already',
  }),
  progress: toggle({ flags: '-p --progress', summary: 'show progress on standard output' }),
  quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
  salvage: toggle({ flags: '--salvage', summary: 'store zeroes for what cannot be read' }),
  rateLimit: text({
    flags: '-r --rate-limit',
    placeholder: 'size',
    summary: 'bytes a second that are written at most',
  }),
  parallel: text({
    flags: '-m --parallel',
    placeholder: 'count',
    summary: 'how many chunks are under way at a time',
  }),
  cache: text({
    flags: '-t --target-cache',
    placeholder: 'mode',
    summary: 'all but unsafe (default) and none bring the target to stable storage at the end',
  }),
  sourceCache: text({
    flags: '-T --source-cache',
    placeholder: 'mode',
    summary: 'cache mode of the sources; checked and without effect',
    hidden: true,
  }),
  outOfOrder: toggle({ flags: '-W --oob-writes', summary: 'accepted', hidden: true }),
  offload: toggle({
    flags: '-C --copy-range-offloading',
    summary: 'let the host copy; on XFS and btrfs both files share their blocks then',
  }),
  bitmaps: toggle({ flags: '--bitmaps', summary: 'copy the dirty bitmaps of the source as well' }),
  skipBroken: toggle({
    flags: '--skip-broken-bitmaps',
    summary: 'with --bitmaps: leave inconsistent ones out instead of refusing',
  }),
  targetImageOpts: toggle({
    flags: '--target-image-opts',
    summary: 'with -n: the target is a list of options',
    hidden: true,
  }),
  ...overwriteOptions,
  forceShare: imageSourceOptions.forceShare,
  imageOpts: imageSourceOptions.imageOpts,
  ...lockOptions,
  objects: imageSourceOptions.objects,
  ...untrustedOptions,
}

/** What `run` of `convert` gets. */
export type ConvertValues = OptionValues<typeof convertOptions>

/** What the options ask for, as far as they can be understood alone. */
export interface ConvertPlan {
  readonly format: CreateFormat
  readonly sparseSize: number
  readonly inFlight: number | undefined
  readonly rateLimit: number | undefined
  readonly durable: boolean
  readonly snapshot: SnapshotWish | undefined
}

const LARGEST_SPARSE = 16 * 1024 * 1024
const MOST_PARALLEL = 16
const OWN_PARALLEL = 8

/** Understands the options; throws a UsageError for what cannot be or does not go together. */
export function planConvert(options: ConvertValues): ConvertPlan {
  const snapshot = options.snapshot === undefined ? undefined : snapshotWish(options.snapshot)
  const sparseSize = options.sparse === undefined ? 4096 : readSparseSize(options.sparse)
  const inFlight = options.parallel === undefined ? undefined : readParallel(options.parallel)
  const rateLimit =
    options.rateLimit === undefined ? undefined : sizeArgument('rate limit', options.rateLimit)
  checkCombinations(options)
  checkCacheMode(options.sourceCache, 'source cache option')
  checkCacheMode(options.cache)
  return {
    format: createFormat(options.targetFormat ?? 'raw'),
    sparseSize,
    inFlight,
    rateLimit,
    durable: !['unsafe', 'none', 'off', undefined].includes(options.cache),
    snapshot,
  }
}

function readSparseSize(value: string): number {
  const size = sizeArgument('buffer size for sparse output', value)
  if (size % 512 === 0 && size <= LARGEST_SPARSE) return size
  throw new UsageError(
    'INVALID_SIZE',
    'Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to ' +
      `${LARGEST_SPARSE}. Select 0 to disable sparse detection (fully allocates output)`,
    { context: { value } },
  )
}

function readParallel(value: string): number {
  const count = /^(0x[0-9a-f]+|\d+)$/i.test(value) ? Number(value) : 0
  if (count >= 1 && count <= MOST_PARALLEL) return Math.min(count, OWN_PARALLEL)
  throw new UsageError(
    'INVALID_OPTION_VALUE',
    `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${MOST_PARALLEL}`,
    { context: { value } },
  )
}

function checkCombinations(options: ConvertValues): void {
  const { compress, offload, noCreate, targetIsZero, snapshots } = options
  const rules: readonly (readonly [boolean, string])[] = [
    [options.skipBroken && !options.bitmaps, 'Use of --skip-broken-bitmaps requires --bitmaps'],
    [compress && offload, 'Cannot enable copy offloading when -c is used'],
    [options.sparse !== undefined && offload, 'Cannot enable copy offloading when -S is used'],
    [offload && options.salvage, 'Cannot use copy offloading in salvaging mode'],
    [options.targetImageOpts && !noCreate, '--target-image-opts requires use of -n flag'],
    [noCreate && options.lists.length > 0, '-o has no effect when skipping image creation'],
    [snapshots && options.snapshot !== undefined, '--snapshots and -l are mutually exclusive'],
    [snapshots && noCreate, '--snapshots needs a new image and cannot go with -n'],
    [snapshots && options.salvage, '--snapshots and --salvage are mutually exclusive'],
    [targetIsZero && !noCreate, '--target-is-zero requires use of -n flag'],
    [
      targetIsZero && options.backing !== undefined,
      'Cannot use --target-is-zero when the destination image has a backing file',
    ],
  ]
  for (const [broken, message] of rules) {
    if (broken)
      throw new UsageError('CONFLICTING_OPTIONS', message, { context: { verb: 'convert' } })
  }
}

/** What the new image is to be, and which backing file it has. */
export interface TargetPlan {
  readonly layout: ImageLayout
  readonly backing: { readonly name: string; readonly format: string } | undefined
}

/** Understands what is to be created. */
export function planTarget(
  options: ConvertValues,
  plan: ConvertPlan,
  sourceCount: number,
): TargetPlan {
  const values = new Map(readCreateValues(plan.format, options.lists))
  const { backing, backingFormat } = options
  if (plan.format === 'raw' && backing !== undefined) {
    throw new UsageError('NOT_SUPPORTED', "Backing file not supported for file format 'raw'")
  }
  if (plan.format === 'qcow2' && backing !== undefined) values.set('backing_file', backing)
  if (plan.format === 'qcow2' && backingFormat !== undefined)
    values.set('backing_fmt', backingFormat)
  const name = values.get('backing_file')
  if (name !== undefined && sourceCount > 1) {
    throw new UsageError(
      'CONFLICTING_OPTIONS',
      'Having a backing file for the target makes no sense when concatenating multiple input images',
    )
  }
  const format = values.get('backing_fmt')
  if (name !== undefined && format === undefined) {
    throw new UsageError('FORMAT_REQUIRED', 'Use of backing file requires explicit backing format')
  }
  if (options.compress) checkCompression(plan.format, values)
  return {
    layout: layoutOf(plan.format, values),
    backing: name === undefined || format === undefined ? undefined : { name, format },
  }
}

/** Refuses compression where the target cannot have it. */
export function checkCompression(format: CreateFormat, values: CreateValues): void {
  if (format === 'raw') {
    throw new UsageError('NOT_SUPPORTED', 'Compression not supported for this file format')
  }
  if ((values.get('preallocation') ?? 'off') !== 'off') {
    throw new UsageError(
      'CONFLICTING_OPTIONS',
      'Compression and preallocation not supported at the same time',
    )
  }
}

function layoutOf(format: CreateFormat, values: CreateValues): ImageLayout {
  return format === 'raw'
    ? { format, preallocation: rawPreallocation(values) }
    : { format, options: qcow2Wish(values) }
}
