/**
 * Puts an overlay on another base. What the two bases show differently is copied into the overlay first and made durable; the
 * name changes last, in one switch. So the overlay reads the same at every moment, also in a power cut.
 */

import { UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, type PartSource, partsOf } from '../block/index.ts'
import type { Qcow2Image } from '../qcow2/index.ts'
import { type FileSystem, isSameFile, LockGroup, nodeFiles } from '../storage/index.ts'
import type { Chain, Layer } from './chain.ts'
import type { LockOptions } from './chain-locks.ts'
import { comparedParts } from './convert.ts'
import { fingerprintOf, remembersContent } from './fingerprint.ts'
import { Gate } from './gate.ts'
import { protocolOf } from './location.ts'
import { butNot, emptyBelow, firstPart, heldParts, imageOf, pullUp, within } from './merge.ts'
import { type GuardScope, guardSnapshots } from './merge-guard.ts'
import { type ChainOptions, openChain } from './open.ts'
import { folderOf, joinPath } from './reference.ts'

/** The base that an overlay is put on. */
export interface NewBase {
  /** As the overlay will name it. */
  readonly name: string
  readonly format: string
}

/** How an overlay is put on another base. */
export interface RebaseOptions extends LongWork, Omit<GuardScope, 'folders'>, LockOptions {
  /** Format of the overlay; found out where left out. */
  readonly format?: ChainOptions['format']
  /** Copies nothing: the new base is said to read as the old one, as after a move. */
  readonly namesOnly?: boolean | undefined
  /** Stores what is copied compressed. */
  readonly compress?: boolean | undefined
  /** Reads the new base although somebody may write it at the same time. */
  readonly forceShare?: boolean | undefined
  readonly gate?: Gate | undefined
  readonly files?: FileSystem | undefined
}

/**
 * Puts the image at `location` on `base`, or on nothing: then it holds everything itself. Throws a UsageError where internal
 * snapshots would read something else (`LAYER_HAS_SNAPSHOTS`), where with `namesOnly` the disk would (`BASE_DIFFERS`), and where
 * the image would stand on itself (`CHAIN_LOOP`).
 */
export function rebaseLayer(
  location: string,
  base: NewBase | undefined,
  options: RebaseOptions = {},
): Promise<void> {
  return throwingFirst(() => rebase(location, base, options))
}

async function rebase(
  location: string,
  base: NewBase | undefined,
  options: RebaseOptions,
): Promise<void> {
  const { files = nodeFiles, gate = new Gate(), format } = options
  const { locking, ignoreWriters, forceShare } = options
  // The new base can stand on files that the overlay stands on too.
  const { lockGroup = new LockGroup() } = options
  const common = { files, gate, locking, ignoreWriters, lockGroup }
  const use = { ...common, ...(format === undefined ? {} : { format }) }
  if (options.namesOnly === true) return rename(location, base, { ...options, use })
  await using chain = await openChain(location, { ...use, writable: true })
  const image = imageOf(chain.active, 'Operation not supported')
  await using below = await openBelow(chain.active, base, { ...common, forceShare })
  const before = chain.layers[1]?.device ?? emptyBelow(image.size)
  const after = below?.device ?? emptyBelow(image.size)
  if (options.unsafe !== true) {
    await guardSnapshots(chain.active, { before, after, action: 'rebase' }, options)
  }
  // Above nothing the copy itself finds out what are zeroes: reading twice would only cost time.
  const zeroesShow = below === undefined
  const parts = zeroesShow
    ? butNot(heldParts([chain.active]), dataOf(chain.device))
    : await missingParts(chain, below)
  await withBacking(image, before, () => pullUp(image, parts, { ...options, zeroesShow }))
  await image.flush()
  await setBase(image, base, below)
}

/** The ranges that the overlay must hold itself to read the same above `below`. */
async function missingParts(chain: Chain, below: Chain | undefined): Promise<PartSource> {
  const { active, device, layers } = chain
  const own = heldParts([active])
  const differs = comparedParts(device, below?.device ?? emptyBelow(0))
  const index = below === undefined ? -1 : await indexOf(layers, below.active)
  // What none of the layers between holds comes from the new base already.
  if (index > 0) return butNot(own, within(heldParts(layers.slice(1, index)), differs))
  return butNot(own, differs)
}

/** What may not be zeroes; whoever copies it finds out. */
function dataOf(device: BlockDevice): PartSource {
  const ask = partsOf(device)
  return async (offset, length) => {
    const parts = await ask(offset, length)
    return parts.map((part) => (part.kind === 'data' ? part : { ...part, kind: 'skip' }))
  }
}

/** Where in the chain the same image stands. */
async function indexOf(layers: readonly Layer[], wanted: Layer): Promise<number> {
  const stat = await wanted.hostFile.stat()
  for (const [index, layer] of layers.entries()) {
    const isSame = layer.format === wanted.format && layer.fileOffset === wanted.fileOffset
    if (isSame && isSameFile(stat, await layer.hostFile.stat())) return index
  }
  return -1
}

/** Does `work` with something below the image in any case: without a backing zeroes would not be stored. */
async function withBacking(
  image: Qcow2Image,
  below: BlockDevice,
  work: () => Promise<void>,
): Promise<void> {
  const hadNone = image.backingReference === undefined
  if (hadNone) image.attachBacking(below)
  try {
    await work()
  } finally {
    if (hadNone) image.attachBacking(undefined)
  }
}

/** Opens the new base as the overlay will: its name seen from the overlay's folder. */
async function openBelow(
  overlay: Layer,
  base: NewBase | undefined,
  use: ChainOptions,
): Promise<Chain | undefined> {
  if (base === undefined) return undefined
  const { name, format } = base
  const location = protocolOf(name) === undefined ? joinPath(folderOf(overlay.path), name) : name
  const chain = await openChain(location, { ...use, format: format as 'raw' })
  try {
    if ((await indexOf(chain.layers, overlay)) < 0) return chain
  } catch (error) {
    await chain.close()
    throw error
  }
  await chain.close()
  throw new UsageError('CHAIN_LOOP', `image would stand on itself through '${name}'`, {
    context: { base: name },
  })
}

async function setBase(
  image: Qcow2Image,
  base: NewBase | undefined,
  below: Chain | undefined,
): Promise<void> {
  if (base === undefined || below === undefined) return image.setBacking(base)
  const look = remembersContent(image.header) ? { content: below.device } : {}
  const fingerprint = await fingerprintOf(below.active, base.name, look)
  await image.setBacking({ ...base, fingerprint })
}

/** Changes the name alone, after a look whether the image then reads as before. */
async function rename(
  location: string,
  base: NewBase | undefined,
  options: RebaseOptions & { readonly use: ChainOptions },
): Promise<void> {
  const { use } = options
  await using chain = await openChain(location, { ...use, writable: true, backing: false })
  const image = imageOf(chain.active, 'Operation not supported')
  if (options.unsafe === true) return image.setBacking(base)
  const { format: _format, ...belowUse } = use
  await using below = await openBelow(chain.active, base, {
    ...belowUse,
    forceShare: options.forceShare,
  })
  await refuseDifference(location, below, options)
  await setBase(image, base, below)
}

/** Compares the old base with the new one, where the old one is still there. */
async function refuseDifference(
  location: string,
  below: Chain | undefined,
  options: RebaseOptions & { readonly use: ChainOptions },
): Promise<void> {
  const { use, forceShare } = options
  const old = await openChain(location, { ...use, forceShare, onBroken: 'report' })
  await using _closing = old
  if (old.broken.length > 0) return
  const before = old.layers[1]?.device ?? emptyBelow(old.device.size)
  const after = below?.device ?? emptyBelow(0)
  await guardSnapshots(old.active, { before, after, action: 'rebase' }, options)
  const part = await firstPart(old.device.size, await missingParts(old, below), options)
  if (part === undefined) return
  throw new UsageError(
    'BASE_DIFFERS',
    `new base reads otherwise than the old one from 0x${part.offset.toString(16)} on, where the image holds nothing`,
    { context: { offset: part.offset } },
  )
}
