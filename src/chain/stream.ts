/**
 * Pulls into an image what lies below it, down to a base that stays or all of it, and then drops the reference. The image reads
 * the same at every moment; what an earlier run has brought up is not read again, so a run that was cut off goes on.
 */

import { isAbsolute, relative, resolve } from 'node:path'
import { UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import type { PartSource } from '../block/index.ts'
import { type FileSystem, nodeFiles } from '../storage/index.ts'
import type { Chain, Layer } from './chain.ts'
import type { LockOptions } from './chain-locks.ts'
import { fingerprintOf, remembersContent } from './fingerprint.ts'
import { Gate } from './gate.ts'
import { protocolOf } from './location.ts'
import { butNot, emptyBelow, findBase, heldParts, imageOf, paceOf, pullUp } from './merge.ts'
import { type GuardScope, guardSnapshots } from './merge-guard.ts'
import { type ChainOptions, openChain } from './open.ts'
import { folderOf } from './reference.ts'

/** How backing data is pulled up. */
export interface StreamOptions extends LongWork, Omit<GuardScope, 'folders'>, LockOptions {
  /** Format of the image; found out where left out. */
  readonly format?: ChainOptions['format']
  /** The layer on which the image stands afterwards; nothing where left out. */
  readonly base?: string | undefined
  readonly compress?: boolean | undefined
  /** Bytes a second. */
  readonly rateLimit?: number | undefined
  readonly gate?: Gate | undefined
  readonly files?: FileSystem | undefined
}

/**
 * Makes the image at `location` independent of the layers between it and the base, or of all. Without any there is nothing to do.
 * Throws a UsageError where its internal snapshots read through to those layers (`LAYER_HAS_SNAPSHOTS`), or there is no such base
 * (`BASE_NOT_FOUND`).
 */
export function streamLayer(location: string, options: StreamOptions = {}): Promise<void> {
  return throwingFirst(() => stream(location, options))
}

async function stream(location: string, options: StreamOptions): Promise<void> {
  const { files = nodeFiles, gate = new Gate(), format } = options
  const { locking, ignoreWriters, lockGroup } = options
  const use = { files, gate, locking, ignoreWriters, lockGroup, writable: true }
  await using chain = await openChain(location, format === undefined ? use : { ...use, format })
  const image = imageOf(chain.active, 'raw image has nothing to pull up')
  const index = await baseIndex(chain, options.base, files)
  const between = chain.layers.slice(1, index)
  const base = chain.layers[index]
  if (between.length === 0) return
  if (options.unsafe !== true) {
    const before = (between[0] as Layer).device
    const after = base?.device ?? emptyBelow(0)
    await guardSnapshots(chain.active, { before, after, action: 'stream' }, options)
  }
  const own = heldParts([chain.active])
  const below = heldParts(between)
  const { rateLimit, compress, signal, onProgress } = options
  await pullUp(image, butNot(own, base === undefined ? withoutZeroes(below) : below), {
    ...{ compress, signal, onProgress },
    pace: paceOf(rateLimit),
  })
  await image.flush()
  await dropLayers(chain, index)
}

async function baseIndex(
  { layers, active }: Chain,
  name: string | undefined,
  files: FileSystem,
): Promise<number> {
  if (name === undefined) return layers.length
  const index = await findBase(files, layers, name)
  if (index !== undefined) return index
  throw new UsageError(
    'BASE_NOT_FOUND',
    `Did not find '${name}' in the backing chain of '${active.filename}'`,
    { context: { base: name } },
  )
}

/** Where nothing lies below there are zeroes anyway. */
function withoutZeroes(parts: PartSource): PartSource {
  return async (offset, length) => {
    const list = await parts(offset, length)
    return list.map((part) => (part.kind === 'zero' ? { ...part, kind: 'skip' } : part))
  }
}

async function dropLayers({ active, layers }: Chain, index: number): Promise<void> {
  const image = imageOf(active, '')
  const base = layers[index]
  if (base === undefined) return image.setBacking(undefined)
  const name = nameFrom(active, layers[index - 1] as Layer, base)
  const look = remembersContent(image.header) ? { content: base.device } : {}
  const fingerprint = await fingerprintOf(base, name, look)
  await image.setBacking({ name, format: base.format, fingerprint })
}

/** The name of the base as the image must write it; the layer above the base names it from another folder. */
export function nameFrom(image: Layer, above: Layer, base: Layer): string {
  const name = above.backing?.name ?? base.filename
  if (protocolOf(name) !== undefined || isAbsolute(name)) return name
  const [here, there] = [resolve(folderOf(image.path)), resolve(folderOf(above.path))]
  return here === there ? name : relative(here, resolve(base.path))
}
