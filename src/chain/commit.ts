/**
 * Pushes what the upper layers of a chain hold into a layer below. A qcow2 base takes all of it over in one switch: a power cut
 * shows it as before or as after. A raw base is overwritten in place; until that has ended only the overlay shows it whole.
 */

import { ImageError, UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import { copy, FlushAhead } from '../block/index.ts'
import { EXTENSION, type MergeSource } from '../qcow2/index.ts'
import { type FileSystem, LockGroup, nodeFiles } from '../storage/index.ts'
import type { Chain, Layer } from './chain.ts'
import type { LockOptions } from './chain-locks.ts'
import { fingerprintOf, remembersContent } from './fingerprint.ts'
import { Gate } from './gate.ts'
import { findBase, heldParts, imageOf, paceOf } from './merge.ts'
import { type GuardScope, guardBetween, guardSiblings, guardSnapshots } from './merge-guard.ts'
import { type ChainOptions, openChain } from './open.ts'
import { PROBE_SIZE, probeFormat } from './probe.ts'
import { transferToLayer } from './transfer.ts'

/** How a layer is committed. */
export interface CommitOptions extends LongWork, GuardScope, LockOptions {
  /** Format of the uppermost image; found out where left out. */
  readonly format?: ChainOptions['format']
  /** The layer that takes the data, as the chain names it; the next one below where left out. */
  readonly base?: string | undefined
  /** Leaves the overlay as it is, for one that will be dropped; with a base further down it always stays. */
  readonly drop?: boolean | undefined
  /** Bytes a second. */
  readonly rateLimit?: number | undefined
  readonly gate?: Gate | undefined
  readonly files?: FileSystem | undefined
}

/**
 * Commits the image at `location`. The overlay reads the same at every moment, also in a power cut, and a run that was cut off
 * can simply be done again. The base grows to the size of the overlay. Throws a UsageError where others would read something else
 * afterwards (`BASE_HAS_OVERLAYS`, `LAYER_HAS_SNAPSHOTS`, `LAYERS_BETWEEN`), where there is no base (`NO_BACKING`), or not that one
 * (`BASE_NOT_FOUND`).
 */
export function commitLayer(location: string, options: CommitOptions = {}): Promise<void> {
  return throwingFirst(() => commit(location, options))
}

async function commit(location: string, options: CommitOptions): Promise<void> {
  const { files = nodeFiles, gate = new Gate(), format, locking, ignoreWriters } = options
  // The base is open twice: below the overlay, and to be written.
  const { lockGroup = new LockGroup() } = options
  const use = { files, gate, locking, ignoreWriters, lockGroup, writable: true }
  await using chain = await openChain(location, format === undefined ? use : { ...use, format })
  const index = await baseIndex(chain, options.base, files)
  const merged = chain.layers.slice(0, index)
  const base = chain.layers[index] as Layer
  const image = imageOf(chain.active, 'raw image has no backing file')
  if (options.unsafe !== true) {
    await guardSiblings(base, merged, { ...options, files })
    await guardMergedSnapshots(chain, merged, options)
    await guardBetween(chain.layers, index, options)
  }
  await refuseNewFormat(chain, index)
  {
    await using target = await openBase(base, use)
    await merge(chain, merged, target, options)
  }
  // With a layer between, what lies below would not be what was there before.
  if (options.drop !== true && options.base === undefined) {
    await image.emptyDisk(options)
  }
  if (index === 1) await renewFingerprint(chain.active, base, use)
}

/** The layers between lose what they were, but their internal snapshots are views as well as those of the uppermost one. */
async function guardMergedSnapshots(
  chain: Chain,
  merged: readonly Layer[],
  work: LongWork,
): Promise<void> {
  for (const [index, layer] of merged.entries()) {
    const before = (chain.layers[index + 1] as Layer).device
    const kept = heldParts(merged.slice(index + 1))
    await guardSnapshots(layer, { before, after: chain.device, kept, action: 'commit' }, work)
  }
}

async function baseIndex(
  chain: Chain,
  name: string | undefined,
  files: FileSystem,
): Promise<number> {
  if (name === undefined) {
    if (chain.layers.length > 1) return 1
    throw new UsageError('NO_BACKING', 'Image does not have a backing file')
  }
  const index = await findBase(files, chain.layers, name)
  if (index !== undefined) return index
  throw new UsageError(
    'BASE_NOT_FOUND',
    `Did not find '${name}' in the backing chain of '${chain.active.filename}'`,
    { context: { base: name } },
  )
}

async function merge(
  chain: Chain,
  merged: readonly Layer[],
  target: Chain,
  options: CommitOptions,
): Promise<void> {
  const lowest = merged.at(-1)?.image
  const below = chain.layers[merged.length] as Layer
  // What the chain opened below does not notice that the base's tables move.
  lowest?.attachBacking(target.device)
  try {
    // With layers between, what the uppermost one does not hold lies in another file.
    const isNext = merged.length === 1
    const means = isNext ? transferToLayer(chain.active, target.active, { onlyShared: true }) : {}
    const source = { device: chain.device, parts: heldParts(merged), ...means }
    await mergeInto(target, source, options)
  } finally {
    lowest?.attachBacking(below.device)
  }
}

async function mergeInto(
  { device, active }: Chain,
  source: MergeSource,
  { signal, onProgress, rateLimit }: CommitOptions,
): Promise<void> {
  const work = { signal, onProgress }
  const pace = paceOf(rateLimit)
  if (active.image !== undefined && active.dataFile === undefined) {
    await active.image.mergeDisk(source, { ...work, pace })
  } else {
    if (device.size < source.device.size) await device.resize(source.device.size)
    const flushes = new FlushAhead(() => device.flush())
    const write = async (offset: number, bytes: Uint8Array): Promise<void> => {
      await device.write(offset, bytes)
      flushes.wrote(bytes.length)
      await pace?.(bytes.length)
    }
    try {
      await copy(source.device, device, { ...work, parts: source.parts, write })
    } finally {
      await flushes.settle()
    }
    await flushes.finish()
  }
  await device.flush()
}

/** Refuses to turn a base that was only guessed to be raw into what the next guess would take for something else. */
async function refuseNewFormat(chain: Chain, index: number): Promise<void> {
  const overlay = chain.layers[index - 1] as Layer
  const base = chain.layers[index] as Layer
  if (base.format !== 'raw' || overlay.backing?.format !== undefined) return
  if (base.location.hasProtocol) return
  const bytes = new Uint8Array(Math.min(PROBE_SIZE, chain.device.size))
  await chain.device.read(0, bytes)
  const found = probeFormat(bytes)
  if (found === 'raw') return
  throw new ImageError(
    'FORMAT_REQUIRED',
    `format of the base is only guessed to be raw, and it would look like ${found}; name it with rebase -u -F raw`,
    { context: { format: found } },
  )
}

/** The overlay remembers the base as it is now, if it remembered it before. */
async function renewFingerprint(overlay: Layer, base: Layer, use: ChainOptions): Promise<void> {
  const { image } = overlay
  const reference = image?.backingReference
  const isKnown = ({ type }: { type: number }) => type === EXTENSION.baseFingerprint
  if (image === undefined || reference === undefined || !image.header.extensions.some(isKnown))
    return
  const isWhole = remembersContent(image.header)
  await using chain = await openBase(base, { ...use, writable: false, backing: isWhole })
  const look = isWhole ? { content: chain.device } : {}
  const fingerprint = await fingerprintOf(chain.active, reference.name, look)
  await image.setBacking({ ...reference, fingerprint })
}

/** Opens the base by itself. The chain above keeps its own view of it, as it was. */
function openBase(base: Layer, use: ChainOptions): Promise<Chain> {
  const { filename, format } = base
  return openChain(filename, filename.startsWith('json:') ? use : { ...use, format })
}
