/** Compares content around a merge: what every view reads where a layer that goes holds something, and a layer with its twin. */

import { createHash } from '../base/hash.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, type PartSource, PartWalk } from '../block/index.ts'
import { type ChainOptions, heldParts, openChain } from '../chain/index.ts'

const STEP = 1024 * 1024

/** What all views of the image at `path` read in the ranges that the layer at `layer` holds, as a digest. */
export async function digestViews(
  path: string,
  layer: { readonly path: string; readonly format: 'qcow2' | 'raw' },
  use: ChainOptions,
  work: LongWork,
): Promise<string> {
  await using chain = await openChain(path, { ...use, format: 'qcow2' })
  await using held = await openChain(layer.path, { ...use, format: layer.format, backing: false })
  const hash = createHash('sha256')
  const add = async (view: Pick<BlockDevice, 'size' | 'read'>): Promise<void> => {
    await readParts(view, heldParts([held.active]), work, async (offset, bytes) => {
      hash.update(`${offset}:${bytes.length}:`).update(bytes)
    })
    hash.update('\n')
  }
  await add(chain.device)
  const { image } = chain.active
  for (const snapshot of image?.snapshots ?? []) {
    await using view = await image?.openSnapshot(snapshot)
    if (view !== undefined) await add(view)
  }
  return hash.digest('hex')
}

/** Where the image at `path` reads otherwise than what it was pushed into, in the ranges that it holds; undefined for nowhere. */
export async function firstDifference(
  path: string,
  below: string,
  use: ChainOptions,
  work: LongWork,
): Promise<number | undefined> {
  await using chain = await openChain(path, { ...use, format: 'qcow2' })
  await using twin = await openChain(below, { ...use, format: 'qcow2' })
  if (chain.device.size !== twin.device.size) return Math.min(chain.device.size, twin.device.size)
  let found: number | undefined
  await readParts(chain.device, heldParts([chain.active]), work, async (offset, bytes) => {
    if (found !== undefined) return
    const other = new Uint8Array(bytes.length)
    await twin.device.read(offset, other)
    const at = bytes.findIndex((byte, index) => byte !== other[index])
    if (at >= 0) found = offset + at
  })
  return found
}

async function readParts(
  device: Pick<BlockDevice, 'size' | 'read'>,
  parts: PartSource,
  { signal }: LongWork,
  take: (offset: number, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const walk = new PartWalk(parts, device.size)
  for (;;) {
    signal?.throwIfAborted()
    const part = await walk.peek()
    if (part === undefined) return
    const length = part.kind === 'skip' ? part.length : Math.min(STEP, part.length)
    if (part.kind !== 'skip') {
      const bytes = new Uint8Array(length)
      await device.read(part.offset, bytes)
      await take(part.offset, bytes)
    }
    walk.moveTo(part.offset + length)
  }
}
