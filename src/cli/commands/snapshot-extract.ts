/** `snapshot -x`: what an internal snapshot holds, as files of their own: its disk, its VM state. */

import { isZero } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import {
  type Chain,
  convertToNew,
  type ImageLayout,
  JoinedDevice,
  NewImage,
} from '../../chain/index.ts'
import type { Qcow2Image, SnapshotRecord } from '../../qcow2/index.ts'
import type { Context } from '../context.ts'
import { createFormat } from './create-options.ts'
import { type LockValues, lockUse } from './lock-options.ts'
import { findSnapshot } from './source-options.ts'
import { refuseSourceAsTarget } from './target-file.ts'
import { guardOverwriting, type ViewsWish } from './views-options.ts'

/** What is extracted, and where to. */
export interface ExtractWish extends ViewsWish, LockValues {
  /** The snapshot, by id or name. */
  readonly snapshot: string
  /** Where its disk goes; nowhere where left out. */
  readonly target: string | undefined
  readonly targetFormat: string | undefined
  /** Where its VM state goes; nowhere where left out. */
  readonly vmState: string | undefined
  readonly progress: boolean
}

const CHUNK_SIZE = 1024 * 1024
const SECTOR_SIZE = 512

/** Extracts what is wished for. Nothing is written where any of it cannot be had. */
export async function extractSnapshot(
  chain: Chain,
  wish: ExtractWish,
  context: Context,
): Promise<void> {
  const { target, vmState } = wish
  if (target === undefined && vmState === undefined) {
    throw new UsageError('MISSING_ARGUMENT', 'Expecting a target, or --vm-state', {
      context: { verb: 'snapshot' },
    })
  }
  const format = createFormat(wish.targetFormat ?? 'raw')
  const layout: ImageLayout = format === 'raw' ? { format } : { format, options: {} }
  const snapshot = findSnapshot(chain, { idOrName: wish.snapshot })
  const image = chain.active.image as Qcow2Image
  if (vmState !== undefined && snapshot.vmStateSize === 0) {
    throw new UsageError('NO_VM_STATE', `snapshot '${wish.snapshot}' has no VM state`, {
      context: { snapshot: wish.snapshot },
    })
  }
  for (const location of [target, vmState]) {
    if (location === undefined) continue
    await refuseSourceAsTarget([chain], location)
    await guardOverwriting(location, wish, { action: 'snapshot -x' }, context)
  }
  if (vmState !== undefined) await extractVmState(image, snapshot, vmState, wish, context)
  if (target !== undefined) await extractDisk(image, snapshot, { target, layout }, wish, context)
}

async function extractDisk(
  image: Qcow2Image,
  snapshot: SnapshotRecord,
  { target, layout }: { target: string; layout: ImageLayout },
  wish: ExtractWish,
  context: Context,
): Promise<void> {
  await using view = await image.openSnapshot(snapshot)
  const device = view.size % SECTOR_SIZE === 0 ? view : new JoinedDevice([view])
  const place = { location: target, layout, durable: true, ...lockUse(wish) }
  const { signal } = context
  await context.withProgress({ label: 'snapshot', percent: wish.progress }, (onProgress) =>
    context.about(target, () => convertToNew(device, place, { signal, onProgress })),
  )
}

async function extractVmState(
  image: Qcow2Image,
  snapshot: SnapshotRecord,
  location: string,
  wish: ExtractWish,
  context: Context,
): Promise<void> {
  const size = snapshot.vmStateSize
  const { signal } = context
  const display = { label: 'VM state', quiet: wish.progress }
  await context.withProgress(display, async (onProgress) => {
    const layout = { format: 'raw' } as const
    const place = { location, layout, size, durable: true, ...lockUse(wish) }
    await using made = await context.about(location, () => NewImage.create(place))
    const buffer = new Uint8Array(Math.min(CHUNK_SIZE, size))
    for (let at = 0; at < size; at += buffer.length) {
      signal.throwIfAborted()
      const bytes = buffer.subarray(0, Math.min(buffer.length, size - at))
      await image.readVmState(at, bytes, snapshot)
      if (!isZero(bytes) || !made.isZero) await made.device.write(at, bytes)
      onProgress({ done: at + bytes.length, total: size })
    }
    await made.finish()
  })
}
