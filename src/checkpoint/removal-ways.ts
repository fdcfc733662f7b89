/**
 * In which ways a layer can be taken out of a tree, what each moves, and which one is chosen: pushing the only overlay down, pulling
 * the layer up into every overlay, or keeping its file as a hidden layer.
 */

import { dirname } from 'node:path'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import {
  type ChainOptions,
  openChain,
  planPullLayer,
  planPushLayer,
  protocolOf,
  pushObstacle,
} from '../chain/index.ts'
import { LockGroup } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import type { Survey, SurveyedLayer } from './survey.ts'

/** How a layer is taken out. */
export type RemovalDirection = 'push' | 'pull' | 'keep'

/** One way to take a layer out. */
export interface RemovalWay {
  readonly direction: RemovalDirection
  /** Why it cannot be done so; undefined where it can. */
  readonly obstacle: string | undefined
  /** Bytes of data that are copied. */
  readonly moved: number
  /** Bytes of space that are taken before anything is given back, by the overlay that takes them; by the layer for a push. */
  readonly taken: ReadonlyMap<SurveyedLayer, number>
  /** Bytes that the files take on the disk afterwards more than now; negative where it gets less. */
  readonly growth: number
}

/** A layer with what stands on it. */
export interface RemovedLayer {
  readonly layer: SurveyedLayer
  readonly overlays: readonly SurveyedLayer[]
  readonly ways: readonly RemovalWay[]
}

/** Finds the ways for a layer on which something stands; reads tables. `isOurs` says of an overlay whether it is of the tree. */
export async function findWays(
  catalogue: CheckpointCatalogue,
  survey: Survey,
  layer: SurveyedLayer,
  options: LongWork & { readonly isOurs: (overlay: SurveyedLayer) => boolean },
): Promise<RemovedLayer> {
  const overlays = survey.overlays.get(layer.key) ?? []
  const use = chainUse(catalogue)
  const [only] = overlays
  const ways: RemovalWay[] = []
  if (only !== undefined && overlays.length === 1) {
    ways.push(await pushWay(layer, only, use, options))
  } else {
    ways.push(impossible('push', `${overlays.length} overlays stand on the layer`))
  }
  ways.push(await pullWay(layer, overlays, use, options))
  ways.push({ ...impossible('keep', undefined), growth: 0 })
  return { layer, overlays, ways }
}

/** How chains of the catalogue's folders are opened. */
export function chainUse({ files, gate }: CheckpointCatalogue): ChainOptions {
  return { files, gate, lockGroup: new LockGroup() }
}

/**
 * The way that is wanted, else the one that moves fewer bytes, or with several overlays the one that leaves fewer bytes on the disk.
 * Throws a UsageError, code `DIRECTION_IMPOSSIBLE`.
 */
export function chooseWay(
  { layer, overlays, ways }: RemovedLayer,
  wanted: RemovalDirection | undefined,
): RemovalWay {
  const possible = ways.filter(({ obstacle }) => obstacle === undefined)
  const merging = possible.filter(({ direction }) => direction !== 'keep')
  const isPointless = wanted === 'keep' && overlays.length === 1 && merging.length > 0
  if (isPointless) {
    throw new UsageError(
      'DIRECTION_IMPOSSIBLE',
      'keep cannot be done: only one overlay stands on the layer, which would be merged at once',
      { context: { path: layer.path, direction: wanted } },
    )
  }
  if (wanted !== undefined) {
    const way = ways.find(({ direction }) => direction === wanted)
    if (way !== undefined && way.obstacle === undefined) return way
    throw new UsageError('DIRECTION_IMPOSSIBLE', `${wanted} cannot be done: ${way?.obstacle}`, {
      context: { path: layer.path, direction: wanted },
    })
  }
  const by = (a: RemovalWay, b: RemovalWay) =>
    overlays.length === 1 ? a.moved - b.moved : a.growth - b.growth
  const candidates = overlays.length === 1 && merging.length > 0 ? merging : possible
  // Pulls first: among equals a push also gives back cluster by cluster what it replaces.
  const isPush = ({ direction }: RemovalWay) => Number(direction === 'push')
  return candidates.toSorted((a, b) => by(a, b) || isPush(a) - isPush(b))[0] as RemovalWay
}

function impossible(direction: RemovalDirection, obstacle: string | undefined): RemovalWay {
  return { direction, obstacle, moved: 0, taken: new Map(), growth: 0 }
}

async function pushWay(
  layer: SurveyedLayer,
  overlay: SurveyedLayer,
  use: ChainOptions,
  options: LongWork & { readonly isOurs: (overlay: SurveyedLayer) => boolean },
): Promise<RemovalWay> {
  const obstacle = placeObstacle(layer, overlay)
  if (obstacle !== undefined) return impossible('push', obstacle)
  if (!options.isOurs(overlay)) return impossible('push', `${overlay.path} is another disk`)
  await using chain = await openChain(overlay.path, { ...use, format: 'qcow2' })
  const reason = pushObstacle(chain)
  if (reason !== undefined) return impossible('push', reason)
  const { dataLength } = await planPushLayer(chain, options)
  const taken = new Map([[layer, dataLength + tableShare(chain.device.size, dataLength, layer)]])
  const growth = dataLength - overlay.stat.allocated
  return { direction: 'push', obstacle: undefined, moved: dataLength, taken, growth }
}

/** Why the file of a layer cannot take the place of its overlay's. */
function placeObstacle(layer: SurveyedLayer, overlay: SurveyedLayer): string | undefined {
  if (layer.format !== 'qcow2') return 'the layer is raw'
  if (layer.stat.kind !== 'file' || overlay.stat.kind !== 'file') return 'it is a device'
  if (layer.stat.dev !== overlay.stat.dev) return 'the overlay lies on another file system'
  if (layer.otherPaths.length > 0) return `the layer has other names: ${layer.otherPaths[0]}`
  const name = layer.below?.name
  const isFixed = name === undefined || name.startsWith('/') || protocolOf(name) !== undefined
  if (!isFixed && dirname(layer.path) !== dirname(overlay.path)) {
    return 'the overlay lies in another folder, where the name of its base would not lead'
  }
  return undefined
}

async function pullWay(
  layer: SurveyedLayer,
  overlays: readonly SurveyedLayer[],
  use: ChainOptions,
  work: LongWork,
): Promise<RemovalWay> {
  if (layer.snapshots.length > 0) {
    return impossible('pull', 'the layer holds internal checkpoints, and its file has to stay')
  }
  if (layer.stat.kind !== 'file') return impossible('pull', 'the layer is a device, and stays')
  const taken = new Map<SurveyedLayer, number>()
  let moved = 0
  for (const overlay of overlays) {
    await using chain = await openChain(overlay.path, { ...use, format: 'qcow2' })
    const isLocked = chain.layers.some(({ image }) => image?.encryption !== undefined)
    if (isLocked) return impossible('pull', 'data is encrypted')
    const { dataLength, takenLength } = await planPullLayer(chain, work)
    moved += dataLength
    taken.set(overlay, takenLength)
  }
  const growth = moved - layer.stat.allocated
  return { direction: 'pull', obstacle: undefined, moved, taken, growth }
}

/** Bytes of tables that are written with so many bytes of data, at most about. */
function tableShare(size: number, length: number, { header }: SurveyedLayer): number {
  const clusterSize = 2 ** (header?.clusterBits ?? 16)
  const reach = clusterSize * (clusterSize / 8)
  const tableCount = Math.min(Math.ceil(size / reach), Math.ceil(length / clusterSize))
  return (tableCount + 4 + Math.ceil(length / clusterSize / (clusterSize / 2))) * clusterSize
}
