/**
 * What `convert`, `compare`, `measure`, `resize`, `dd` and `io` share: how they open the images whose data they
 * work on, what `-l` names, numbers and cache modes. The options that name an image are image-source.ts's affair.
 */

import { CowpointError, ImageError, UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import type { BlockDevice } from '../../block/index.ts'
import type { Chain } from '../../chain/index.ts'
import type { Mapping, SnapshotRecord } from '../../qcow2/index.ts'
import type { Context } from '../context.ts'
import { parseKeyValues } from '../options.ts'
import { warnOfBases } from './base-warning.ts'
import { type ImageSource, type ImageUse, openImage } from './image-source.ts'

/** A number with a unit, in qemu-img's words where it is none. */
export function sizeArgument(what: string, value: string): number {
  try {
    return parseSize(value)
  } catch {
    throw new UsageError(
      'INVALID_SIZE',
      `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for kilobytes, ` +
        'megabytes, gigabytes, terabytes, petabytes and exabytes',
      { context: { value } },
    )
  }
}

const CACHE_MODES = ['none', 'off', 'directsync', 'writeback', 'unsafe', 'writethrough']

/** Checks the name of a cache mode; what it means is for the verb. */
export function checkCacheMode(mode: string | undefined, what = 'cache option'): void {
  if (mode === undefined || CACHE_MODES.includes(mode)) return
  throw new UsageError('INVALID_OPTION_VALUE', `Invalid ${what}: ${mode}`, {
    context: { value: mode },
  })
}

/** How an image is opened. */
export interface SourceUse extends Partial<ImageSource> {
  readonly writable?: boolean
  /** Opens what can be opened where a backing file is missing. */
  readonly patient?: boolean
  /** The exit status where the image cannot be opened; 1 where left out. */
  readonly status?: number
}

/**
 * Opens an image to work on its data; failures are about `location`. What turns out to be raw is opened for writing too, with a
 * warning as qemu-img gives it. Encrypted images are refused.
 */
export function openSource(
  context: Context,
  location: string,
  use: SourceUse = {},
): Promise<Chain> {
  const { format, imageOpts = false, forceShare = false, writable = false, ...rest } = use
  const onBroken = use.patient === true ? 'report' : 'throw'
  const status = use.status === undefined ? {} : { status: use.status }
  return context.about(
    location,
    async () => {
      const chain = await openGuessing(
        context,
        location,
        { ...rest, format, imageOpts, forceShare },
        { writable, onBroken },
      )
      try {
        refuseEncrypted(chain)
        await warnOfBases(chain, context)
      } catch (error) {
        await chain.close()
        throw error
      }
      return chain
    },
    status,
  )
}

async function openGuessing(
  context: Context,
  location: string,
  source: ImageSource,
  use: ImageUse,
): Promise<Chain> {
  checkFormatName(source.format)
  try {
    return await openImage(location, source, use)
  } catch (error) {
    if (!(error instanceof CowpointError) || error.code !== 'FORMAT_REQUIRED') throw error
    await context.stderr.write(
      `WARNING: Image format was not specified for '${location}' and probing guessed raw.\n` +
        "         Specify the 'raw' format explicitly: a guest can make its disk look like another format.\n",
    )
    return openImage(location, { ...source, format: 'raw' }, use)
  }
}

function checkFormatName(name: string | undefined): void {
  if (name === undefined || name === 'qcow2' || name === 'raw' || name === 'file') return
  throw new UsageError('UNKNOWN_FORMAT', `Unknown driver '${name}'`, { context: { format: name } })
}

function refuseEncrypted(chain: Chain): void {
  const encryption = chain.layers.map((layer) => layer.image?.encryption).find(Boolean)
  if (encryption === undefined) return
  throw new ImageError('ENCRYPTED', `image is encrypted (${encryption}), its data cannot be read`, {
    context: { encryption },
  })
}

/** A device that can tell where its own layer holds something. */
export interface MappedDevice {
  readonly device: BlockDevice
  /** Undefined where the format has no mappings. */
  readonly map: ((offset: number, length: number) => Promise<Mapping>) | undefined
}

/** What of the snapshots `-l` asks for: one by id or name, or one by either or both. */
export type SnapshotWish =
  | { readonly idOrName: string }
  | { readonly id: string | undefined; readonly name: string | undefined }

/** Reads the text after `-l`: `[ID_OR_NAME]` or `snapshot.id=[ID],snapshot.name=[NAME]`. */
export function snapshotWish(value: string): SnapshotWish {
  if (!value.startsWith('snapshot.')) return { idOrName: value }
  const parts = parseKeyValues([value])
  for (const key of parts.keys()) {
    if (key === 'snapshot.id' || key === 'snapshot.name') continue
    throw new UsageError('INVALID_PARAMETER', `Failed in parsing snapshot param '${value}'`, {
      context: { parameter: key },
    })
  }
  return { id: parts.get('snapshot.id'), name: parts.get('snapshot.name') }
}

/** The uppermost layer as it is, or as the snapshot that `wish` names has it. The caller closes the view of a snapshot. */
export async function openView(
  chain: Chain,
  wish: SnapshotWish | undefined,
): Promise<MappedDevice & { readonly ofSnapshot: boolean }> {
  const { image } = chain.active
  if (wish === undefined || image === undefined) {
    if (wish !== undefined) findSnapshot(chain, wish)
    const map = image && ((offset: number, length: number) => image.map(offset, length))
    return { device: chain.device, map, ofSnapshot: false }
  }
  const view = await image.openSnapshot(findSnapshot(chain, wish))
  return {
    device: view,
    map: (offset, length) => view.map(offset, length),
    ofSnapshot: true,
  }
}

/** The internal snapshot of the uppermost layer that `wish` names. */
export function findSnapshot(chain: Chain, wish: SnapshotWish): SnapshotRecord {
  const { image } = chain.active
  if (image === undefined) {
    throw new UsageError('NOT_SUPPORTED', 'Failed to load snapshot: format raw has no snapshots')
  }
  const found =
    'idOrName' in wish
      ? (image.snapshots.find(({ id }) => id === wish.idOrName) ??
        image.snapshots.find(({ name }) => name === wish.idOrName))
      : image.snapshots.find(
          ({ id, name }) =>
            (wish.id === undefined || id === wish.id) &&
            (wish.name === undefined || name === wish.name),
        )
  if (found !== undefined) return found
  throw new UsageError('SNAPSHOT_NOT_FOUND', "Failed to load snapshot: Can't find snapshot", {
    context: 'idOrName' in wish ? { snapshot: wish.idOrName } : {},
  })
}
