/**
 * `convert`: one or several images, or a snapshot of one, into another image. The options are in convert-options.ts, the work is
 * chain/convert.ts's; here the images are opened and put together.
 */

import { UsageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import {
  type Chain,
  type ConvertOptions,
  type ConvertTarget,
  convertInto,
  convertToNew,
  convertWithSnapshots,
  fingerprintOf,
  folderOf,
  type HostCopySource,
  holeAwareDevice,
  type ImageLayout,
  JoinedDevice,
  joinPath,
  parseLocation,
  protocolOf,
  type Unchanged,
} from '../../chain/index.ts'
import type { Qcow2Image } from '../../qcow2/index.ts'
import { isSameFile } from '../../storage/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { writeOnOneThread } from '../one-writer.ts'
import { BlamingDevice } from './blaming-device.ts'
import { type BitmapCopy, planBitmapCopy } from './convert-bitmaps.ts'
import {
  type ConvertPlan,
  type ConvertValues,
  checkCompression,
  convertOptions,
  planConvert,
  planTarget,
  type TargetPlan,
} from './convert-options.ts'
import { storeStdin, writeOut } from './convert-streams.ts'
import { asksForHelp, createFormat, readCreateValues, unservedWishes } from './create-options.ts'
import { createOptionsHelp } from './create-table.ts'
import { lockUse } from './lock-options.ts'
import { OpenStack } from './open-stack.ts'
import { SalvageDevice } from './salvage-device.ts'
import { type MappedDevice, openSource, openView } from './source-options.ts'
import { isStdin, isStdout, refuseSourceAsTarget } from './target-file.ts'
import { refuseExpansion } from './untrusted-options.ts'
import { guardOverwriting, guardViews } from './views-options.ts'

/** The verb `convert`. */
export const command = defineCommand({
  name: 'convert',
  summary: 'copy images into another image or format',
  manners: 'qemu-img',
  options: convertOptions,
  positionals: [
    {
      name: 'source',
      summary: 'images, one behind the other; - is standard input',
      many: true,
      optional: true,
    },
    { name: 'target', summary: 'the new image; - is standard output (raw only)', optional: true },
  ],
  notes: [
    'A new target appears under its name when it is whole; one that exists is replaced, and removed if that fails. Snapshots ' +
      'are copied only with --snapshots, bitmaps only with --bitmaps. With -B the target reads as the source does, whatever the backing file holds.',
    '-C lets the host copy what the file of the source holds as it is, and share its blocks where the file system can (XFS, btrfs); ' +
      'zeroes are not looked for. It counts for one whole disk into a new image without a backing file or preallocated clusters, and ' +
      'without -r.',
    '-T and -W are understood and change nothing: writes are kept in flight and in no strict order unless -m 1 is given.',
  ],
  examples: [
    { line: 'cowpoint convert -O qcow2 disk.raw disk.qcow2', summary: 'raw to qcow2' },
    { line: 'cowpoint convert -c -O qcow2 disk.qcow2 small.qcow2', summary: 'compressed' },
    { line: 'cowpoint convert -l monday -O raw disk.qcow2 monday.raw', summary: 'a snapshot' },
    {
      line: 'cowpoint convert --snapshots -O qcow2 -o cluster_size=128k disk.qcow2 new.qcow2',
      summary: 'all of it, with its snapshots',
    },
    {
      line: 'cowpoint convert -O qcow2 -B base.qcow2 -F qcow2 disk.raw over.qcow2',
      summary: 'only what differs from base.qcow2',
    },
  ],
  run: async ({ options, positionals }, context) => {
    if (asksForHelp(options.lists)) {
      const format = createFormat(options.targetFormat ?? 'raw')
      const lines = createOptionsHelp(format, positionals.length > 1)
      await context.stdout.write(`${lines.join('\n')}\n`)
      return 0
    }
    const plan = planConvert(options)
    const names = positionals.slice(0, -1)
    const target = positionals.at(-1)
    if (names.length === 0 || target === undefined) {
      throw new UsageError('MISSING_ARGUMENT', 'Must specify image file name', {
        context: { verb: 'convert' },
      })
    }
    const work = { options, plan, target, context }
    if (options.snapshots && (names.length > 1 || isStdin(names[0] ?? '') || isStdout(target))) {
      throw new UsageError('NOT_SUPPORTED', 'Copying snapshots only possible from file to file')
    }
    if (options.bitmaps && names.length > 1) {
      throw new UsageError('NOT_SUPPORTED', 'Copying bitmaps only possible with single source')
    }
    await using stack = new OpenStack()
    const source = await openSources(names, work, stack)
    if (!options.compress) await writeOnOneThread(source.chains)
    if (isStdout(target)) await convertToStdout(source, work)
    else if (options.noCreate) await convertToExisting(source, work, stack)
    else await convertToCreated(source, work, stack)
    return 0
  },
})

interface Work {
  readonly options: ConvertValues
  readonly plan: ConvertPlan
  readonly target: string
  readonly context: Context
}

/** All sources as one device. */
interface OpenedSource extends MappedDevice {
  readonly chains: readonly Chain[]
  /** The bitmaps to go along; none are asked for where undefined. */
  readonly bitmaps: BitmapCopy | undefined
}

async function openSources(
  names: readonly string[],
  { options, plan, target, context }: Work,
  stack: OpenStack,
): Promise<OpenedSource> {
  const chains: Chain[] = []
  for (const name of names) {
    let path = name
    if (isStdin(name)) {
      const stored = await storeStdin(context, isStdout(target) ? undefined : target)
      path = stack.use(stored).path
    }
    const chain = stack.use(await openSource(context, path, options))
    if (isStdout(target) || writesHoles(plan, options)) {
      await context.about(name, () => refuseExpansion(chain, options, chain.device.size))
    }
    chains.push(chain)
  }
  if (plan.snapshot !== undefined && chains.length > 1) {
    throw new UsageError('NOT_SUPPORTED', 'No support for concatenating multiple snapshot')
  }
  const [first = '', chain] = [names[0], chains[0]]
  const view = await context.about(first, () => openView(chain!, plan.snapshot))
  if (view.ofSnapshot) stack.use(view.device)
  const single = chains.length === 1 && view.device.size % 512 === 0
  const devices: BlamingDevice[] = []
  for (const [index, one] of chains.entries()) {
    const subject = names[index] ?? ''
    const device = view.ofSnapshot
      ? view.device
      : await context.about(subject, () => holeAwareDevice(one))
    devices.push(new BlamingDevice(device, { subject }))
  }
  const joined = single ? devices[0]! : new JoinedDevice(devices)
  const device = options.salvage ? salvaged(joined, context, options.quiet) : joined
  const bitmaps = options.bitmaps
    ? await planBitmapCopy(chain!.active.image, { skipBroken: options.skipBroken, context })
    : undefined
  return { device, map: single ? view.map : undefined, chains, bitmaps }
}

/** Whether what holds nothing takes space in the target. */
function writesHoles({ sparseSize }: ConvertPlan, { lists }: ConvertValues): boolean {
  return sparseSize === 0 || lists.some((list) => /preallocation=(full|falloc)/.test(list))
}

function salvaged(device: BlockDevice, context: Context, quiet: boolean): BlockDevice {
  return new SalvageDevice(device, async (offset, error) => {
    if (!quiet) await context.warn(`error while reading offset ${offset}: ${error.message}`)
  })
}

async function convertToStdout({ device, bitmaps }: OpenedSource, work: Work): Promise<void> {
  const { options, plan, context } = work
  bitmaps?.checkTarget(plan.format, undefined)
  if (plan.format !== 'raw' || options.noCreate) {
    throw new UsageError('NOT_SUPPORTED', 'only a new raw image can be written to standard output')
  }
  if (options.compress) checkCompression(plan.format, new Map())
  const quiet = options.quiet || options.progress
  await context.withProgress({ label: 'convert', quiet }, (onProgress) =>
    writeOut(device, context.stdout, { signal: context.signal, onProgress }),
  )
}

async function convertToExisting(
  source: OpenedSource,
  work: Work,
  stack: OpenStack,
): Promise<void> {
  const { options, plan, target, context } = work
  // Before the lock says that somebody uses it: that would be us.
  if (!options.targetImageOpts) await refuseSourceAsTarget(source.chains, target)
  const chain = stack.use(
    await openSource(context, target, {
      format: options.targetImageOpts ? options.targetFormat : plan.format,
      imageOpts: options.targetImageOpts,
      noLock: options.noLock,
      ignoreWriters: options.ignoreWriters,
      writable: true,
    }),
  )
  const { device } = chain
  const { image, path } = chain.active
  source.bitmaps?.checkTarget(chain.active.format, image?.header.version)
  if (options.compress && image === undefined) checkCompression('raw', new Map())
  if (device.size < source.device.size) {
    throw new UsageError('TARGET_TOO_SMALL', 'output file is smaller than input file', {
      context: { sourceSize: source.device.size, targetSize: device.size },
    })
  }
  await refuseSourceAsTarget(source.chains, chain.active.path)
  await guardViews(path, options, { action: 'convert' }, context)
  // What the target reads as now is as good as a backing file that reads so.
  const unchanged = options.backing === undefined ? undefined : { backing: device }
  const into: ConvertTarget = {
    device,
    isZero: options.targetIsZero,
    ...(options.compress && image !== undefined
      ? {
          compress: {
            clusterSize: image.geometry.clusterSize,
            write: (offset, bytes) => image.writeCompressed(offset, bytes),
          },
        }
      : {}),
  }
  await withProgress(work, (work) => convertInto(source.device, into, { ...work, unchanged }))
  if (image !== undefined) await context.about(target, () => source.bitmaps?.copyTo(image))
  if (plan.durable) await device.flush()
}

async function convertToCreated(source: OpenedSource, work: Work, stack: OpenStack): Promise<void> {
  const { options, plan, target, context } = work
  const created = planTarget(options, plan, source.chains.length)
  for (const wish of unservedWishes(readCreateValues(plan.format, options.lists))) {
    await context.warn(wish, target)
  }
  source.bitmaps?.checkTarget(plan.format, versionOf(created.layout))
  await refuseSourceAsTarget(source.chains, target, created.layout)
  const dataFile = dataFileOf(created.layout)
  await guardOverwriting(target, options, { action: 'convert', dataFile }, context)
  const unchanged = await openBacking(source, created, work, stack)
  const backing = unchanged?.backing
  const layout = remembering(created.layout, unchanged?.fingerprint)
  const place = { location: target, layout, durable: plan.durable, ...lockUse(options) }
  const { compress } = options
  const complete = async (image: Qcow2Image): Promise<void> => source.bitmaps?.copyTo(image)
  await withProgress(work, async (progress) => {
    const how = { ...progress, compress, complete }
    if (!options.snapshots) {
      const byHost = byHostSource(source, work, backing)
      await convertToNew(source.device, { ...place, backing }, { ...how, unchanged, byHost })
      return
    }
    const isOwn = unchanged?.map !== undefined
    await convertWithSnapshots(source.chains[0]!, place, {
      ...how,
      backing: backing && { device: backing, isOwn },
    })
  })
}

/** What `-C` copies, where that can be done. */
function byHostSource(
  { chains, device }: OpenedSource,
  { options, plan }: Work,
  backing: BlockDevice | undefined,
): HostCopySource | undefined {
  const [chain, other] = chains
  if (!options.offload || chain === undefined || other !== undefined) return undefined
  if (plan.snapshot !== undefined || plan.rateLimit !== undefined || backing !== undefined) {
    return undefined
  }
  return { device, layer: chain.active }
}

function versionOf(layout: ImageLayout): 2 | 3 | undefined {
  return layout.format === 'qcow2' ? (layout.options.version ?? 3) : undefined
}

function dataFileOf(layout: ImageLayout): string | undefined {
  return layout.format === 'qcow2' ? layout.options.dataFile?.name : undefined
}

interface OpenedBacking extends Unchanged {
  readonly fingerprint: Awaited<ReturnType<typeof fingerprintOf>>
}

/** Opens the backing file of the target, and finds out whether the source stands on it too. */
async function openBacking(
  { chains, map }: OpenedSource,
  { backing, layout }: TargetPlan,
  { options, target, context }: Work,
  stack: OpenStack,
): Promise<OpenedBacking | undefined> {
  if (backing === undefined) return undefined
  const { name, format } = backing
  const { path } = parseLocation(target)
  const location = protocolOf(name) === undefined ? joinPath(folderOf(path), name) : name
  const { noLock } = options
  const chain = stack.use(await openSource(context, location, { format, noLock }))
  await refuseSourceAsTarget([chain], target, layout)
  const below = chains[0]?.layers[1]
  const own = chain.active
  const same =
    below !== undefined &&
    below.format === own.format &&
    below.fileOffset === own.fileOffset &&
    isSameFile(await below.hostFile.stat(), await own.hostFile.stat())
  return {
    backing: chain.device,
    fingerprint: await fingerprintOf(own, name),
    ...(same && map !== undefined ? { map } : {}),
  }
}

/** The layout of an image that remembers what lies below it. */
function remembering(layout: ImageLayout, fingerprint: OpenedBacking['fingerprint']): ImageLayout {
  if (layout.format !== 'qcow2' || fingerprint === undefined) return layout
  return { ...layout, options: { ...layout.options, extensions: [fingerprint] } }
}

function withProgress<T>(
  { options, plan, target, context }: Work,
  convert: (options: ConvertOptions) => Promise<T>,
): Promise<T> {
  const { sparseSize, inFlight, rateLimit } = plan
  const display = { percent: options.progress, quiet: options.quiet, label: 'convert' }
  return context.withProgress(display, (onProgress) =>
    context.about(target, () =>
      convert({
        sparseSize,
        rateLimit,
        signal: context.signal,
        onProgress,
        ...(inFlight === undefined ? {} : { inFlight }),
      }),
    ),
  )
}
