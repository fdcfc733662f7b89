/**
 * Copies an image with all its internal snapshots: the oldest view is written, becomes a snapshot, then what the next one has
 * otherwise is written, and so on to the disk as it is. What snapshots share stays shared as far as the tables tell.
 */

import { isZero, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, type PartSource, partsOf } from '../block/index.ts'
import type { Qcow2Image, SnapshotRecord, SnapshotView } from '../qcow2/index.ts'
import type { Chain } from './chain.ts'
import type { ChangedExtent } from './changed-extent.ts'
import { type ConvertOptions, type ConvertTarget, convertInto } from './convert.ts'
import { type DiffView, diffViews } from './diff.ts'
import { NewImage, type NewImageOptions } from './new-image.ts'

const SECTOR_SIZE = 512
const CHUNK_SIZE = 1024 * 1024

/** How an image is copied with its snapshots. */
export interface ConvertSnapshotsOptions extends Omit<ConvertOptions, 'unchanged' | 'parts'> {
  readonly compress?: boolean | undefined
  /** What the backing file named in the target's layout reads as, and whether the source stands on that very file. */
  readonly backing?: { readonly device: BlockDevice; readonly isOwn: boolean } | undefined
  /** What else belongs into the image, once its content is there. */
  readonly complete?: ((image: Qcow2Image) => Promise<void>) | undefined
}

/**
 * Creates an image that reads as the uppermost one of `chain`, with snapshots that have the same ids, names, dates, clocks, sizes,
 * content and VM state, and gives it its name; where it rejects nothing is left of it. Throws a UsageError, code
 * `SNAPSHOTS_NOT_SUPPORTED`, where source or target can have none.
 */
export async function convertWithSnapshots(
  chain: Chain,
  target: Omit<NewImageOptions, 'size' | 'backing'>,
  options: ConvertSnapshotsOptions = {},
): Promise<void> {
  const { image } = chain.active
  const { layout } = target
  if (image === undefined || layout.format === 'raw') {
    throw new UsageError('SNAPSHOTS_NOT_SUPPORTED', 'raw images have no internal snapshots')
  }
  if (layout.options.dataFile !== undefined && image.snapshots.length > 0) {
    throw new UsageError(
      'SNAPSHOTS_NOT_SUPPORTED',
      'image with an external data file has no internal snapshots',
    )
  }
  const views: View[] = []
  for (const snapshot of image.snapshots) {
    views.push({ device: await image.openSnapshot(snapshot), snapshot })
  }
  views.push({ device: image })
  const sizes = views.map(({ device }) => roundUp(device.size, SECTOR_SIZE))
  await using made = await NewImage.create({
    ...target,
    size: sizes[0] as number,
    backing: options.backing?.device,
  })
  await new SnapshotCopy(chain, made, options).run(views, sizes)
  await options.complete?.(made.image as Qcow2Image)
  await made.finish()
}

interface View {
  readonly device: SnapshotView | Qcow2Image
  readonly snapshot?: SnapshotRecord
}

class SnapshotCopy {
  readonly #chain: Chain
  readonly #image: Qcow2Image
  readonly #isZero: boolean
  readonly #options: ConvertSnapshotsOptions

  constructor(chain: Chain, made: NewImage, options: ConvertSnapshotsOptions) {
    this.#chain = chain
    this.#image = made.image as Qcow2Image
    this.#isZero = made.isZero
    this.#options = options
  }

  async run(views: readonly View[], sizes: readonly number[]): Promise<void> {
    const total = sizes.reduce((sum, size) => sum + size, 0)
    let done = 0
    let previous: View | undefined
    for (const [index, view] of views.entries()) {
      const size = sizes[index] as number
      if (previous !== undefined && size !== sizes[index - 1]) {
        await this.#image.resizeDisk(size, { shrink: true, signal: this.#options.signal })
      }
      const before = done
      await this.#copyDisk(view, previous, (progress) =>
        this.#options.onProgress?.({ done: before + progress.done, total }),
      )
      if (view.snapshot !== undefined) await this.#keep(view.snapshot, view.device.size)
      done += size
      previous = view
    }
  }

  async #copyDisk(
    view: View,
    previous: View | undefined,
    onProgress: NonNullable<LongWork['onProgress']>,
  ): Promise<void> {
    const { device } = view
    const { backing } = this.#options
    const unchanged =
      backing === undefined
        ? undefined
        : {
            backing: backing.device,
            ...(backing.isOwn
              ? { map: (offset: number, length: number) => device.map(offset, length) }
              : {}),
          }
    const first = { isZero: this.#isZero, unchanged, parts: undefined }
    const { isZero, ...how } =
      previous === undefined
        ? first
        : { isZero: false, unchanged: undefined, parts: this.#changedParts(previous, view) }
    await convertInto(device, this.#target(isZero), { ...this.#options, ...how, onProgress })
  }

  #target(isZero: boolean): ConvertTarget {
    const image = this.#image
    if (this.#options.compress !== true) return { device: image, isZero }
    const compress = {
      clusterSize: image.geometry.clusterSize,
      write: (offset: number, bytes: Uint8Array) => image.writeCompressed(offset, bytes),
    }
    return { device: image, isZero, compress }
  }

  /** What `view` has otherwise than `previous`, which the target reads as; to be asked in order. */
  #changedParts(previous: View, view: View): PartSource {
    const chain = this.#chain
    const viewOf = ({ snapshot }: View): DiffView => ({ chain, snapshot })
    const { signal } = this.#options
    const changes = diffViews(viewOf(previous), viewOf(view), { signal })
    const held = partsOf(view.device)
    let list: readonly ChangedExtent[] = []
    let index = 0
    /** The first change that ends behind `offset`. */
    const changeAt = async (offset: number): Promise<ChangedExtent | undefined> => {
      for (;;) {
        for (; index < list.length; index++) {
          const change = list[index] as ChangedExtent
          if (change.offset + change.length > offset) return change
        }
        const next = await changes.next()
        if (next.done === true) return undefined
        list = next.value
        index = 0
      }
    }
    return async (offset, length) => {
      const change = await changeAt(offset)
      const skipped = change === undefined ? length : Math.min(length, change.offset - offset)
      if (change === undefined || skipped > 0) return [{ offset, length: skipped, kind: 'skip' }]
      return held(offset, Math.min(length, change.offset + change.length - offset))
    }
  }

  /** Makes what was written a snapshot like `snapshot`. */
  async #keep(snapshot: SnapshotRecord, diskSize: number): Promise<void> {
    const image = this.#image
    await this.#copyVmState(snapshot)
    const { name, vmClock, icount, vmStateSize, id, date, unknownExtra } = snapshot
    await image.createSnapshot({
      ...{ name, vmClock, vmStateSize, signal: this.#options.signal },
      ...(icount === undefined ? {} : { icount }),
      privateData: unknownExtra,
      like: { id, date, diskSize },
    })
  }

  async #copyVmState(snapshot: SnapshotRecord): Promise<void> {
    const { signal } = this.#options
    const buffer = new Uint8Array(Math.min(CHUNK_SIZE, snapshot.vmStateSize))
    for (let at = 0; at < snapshot.vmStateSize; at += buffer.length) {
      signal?.throwIfAborted()
      const bytes = buffer.subarray(0, Math.min(buffer.length, snapshot.vmStateSize - at))
      await (this.#chain.active.image as Qcow2Image).readVmState(at, bytes, snapshot)
      // What was never written reads as zeroes there too.
      if (!isZero(bytes)) await this.#image.writeVmState(at, bytes)
    }
  }
}
