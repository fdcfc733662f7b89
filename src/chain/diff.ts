/**
 * What changed from one view to another, by their tables: two snapshots, a layer and what it stands on, siblings on a common
 * base, or images that have nothing to do with each other. Nothing that changed is missed; what is told may be too much, unless
 * the bytes are compared as well (diff-content.ts).
 */

import { breathe } from '../base/breathe.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, checkRange } from '../block/index.ts'
import type { SnapshotRecord, SnapshotView } from '../qcow2/index.ts'
import type { Chain } from './chain.ts'
import { addChange, type ChangedExtent } from './changed-extent.ts'
import { exactChanges } from './diff-content.ts'
import { LayerPlaces, type Place, StackPlaces } from './view-places.ts'

/** Something that reads as a disk: the active disk of a chain, a layer further down, or a snapshot of that layer. */
export interface DiffView {
  readonly chain: Chain
  /** The layer that is looked at, with all below it; 0, the active one, where left out. */
  readonly depth?: number | undefined
  /** An internal snapshot of that layer, instead of its disk as it is. */
  readonly snapshot?: SnapshotRecord | undefined
}

/** How views are compared. */
export interface DiffOptions extends LongWork {
  /** Compares the bytes of what may have changed, so that only what really differs is told. */
  readonly content?: boolean | undefined
  /** With `content`: changes are told in whole blocks of so many bytes, a power of two; 1 where left out. */
  readonly granularity?: number | undefined
}

/**
 * The changes from view `a` to view `b`, ascending, many at a time; neighbours of one kind are joined within what comes together.
 * Reads tables only, those that both share not even once, unless `content` is asked for. Neither view may be written to
 * meanwhile. Throws the error of a missing backing file where `content` hangs on it; without it what comes from there is a change.
 */
export async function* diffViews(
  a: DiffView,
  b: DiffView,
  options: DiffOptions = {},
): AsyncGenerator<readonly ChangedExtent[], void> {
  const opened = [await openView(a), await openView(b)] as const
  const [deviceA, deviceB] = opened.map(({ device }) => device) as [BlockDevice, BlockDevice]
  const common = Math.min(deviceA.size, deviceB.size)
  const total = Math.max(deviceA.size, deviceB.size)
  const maybe = tableDifferences(await pairOf(opened), common, total, options)
  const { granularity = 1 } = options
  yield* options.content === true
    ? exactChanges(maybe, [deviceA, deviceB], { ...options, granularity })
    : maybe
  if (common < total) yield [{ offset: common, length: total - common, kind: 'size' }]
  options.onProgress?.({ done: total, total })
}

interface OpenedView {
  readonly device: BlockDevice
  readonly layers: readonly LayerPlaces[]
  /** What the lowest layer stands on, if that could not be opened. */
  readonly missing: string | undefined
}

async function openView({ chain, depth = 0, snapshot }: DiffView): Promise<OpenedView> {
  checkRange(chain.layers.length, depth, 1)
  const [top, ...below] = chain.layers.slice(depth)
  const view = snapshot === undefined ? undefined : await top?.image?.openSnapshot(snapshot)
  const layers = [await LayerPlaces.of(top!, view)]
  for (const layer of below) layers.push(await LayerPlaces.of(layer))
  const isBroken = chain.broken.some(({ kind }) => kind === 'backing')
  const missing = isBroken ? `below ${layers.at(-1)?.identity}` : undefined
  return { device: view ?? top!.device, layers, missing }
}

/** Two views, taken apart into what each has for itself and what may be the same. */
interface Pair {
  /** Of each view: what stands above that which is compared as a whole. */
  readonly upper: readonly [StackPlaces, StackPlaces]
  readonly whole: readonly [StackPlaces, StackPlaces]
  /** Says where what lies below both uppers is the same. */
  readonly below: SharedBelow
}

async function pairOf([a, b]: readonly [OpenedView, OpenedView]): Promise<Pair> {
  let sharedCount = 0
  const fromEnd = ({ layers }: OpenedView, count: number) => layers[layers.length - 1 - count]
  for (;;) {
    const [layerA, layerB] = [fromEnd(a, sharedCount), fromEnd(b, sharedCount)]
    if (layerA === undefined || layerB === undefined) break
    if (layerA.identity !== layerB.identity) break
    if (layerA.snapshot !== layerB.snapshot) break
    sharedCount++
  }
  const [lastA, lastB] = [fromEnd(a, sharedCount), fromEnd(b, sharedCount)]
  // Both see one image, each as it was at another time: its tables tell where that is the same.
  const image = lastA?.layer.image
  const versions =
    image !== undefined && image === lastB?.layer.image ? ([lastA!, lastB] as const) : undefined
  const upperOf = ({ layers }: OpenedView) =>
    new StackPlaces(layers.slice(0, layers.length - sharedCount - (versions ? 1 : 0)))
  return {
    upper: [upperOf(a), upperOf(b)],
    whole: [new StackPlaces(a.layers, a.missing), new StackPlaces(b.layers, b.missing)],
    below: new SharedBelow(versions),
  }
}

/** Where what two views stand on is the same: everywhere, or where an image's tables are the same for both. */
class SharedBelow {
  readonly #versions: readonly [LayerPlaces, LayerPlaces] | undefined
  readonly #size: number
  #ranges: readonly { readonly offset: number; readonly length: number }[] = []
  #next = 0
  #start = 0
  #end = 0

  constructor(versions: readonly [LayerPlaces, LayerPlaces] | undefined) {
    this.#versions = versions
    this.#size = versions === undefined ? 0 : Math.min(versions[0].size, versions[1].size)
  }

  /** How far from `offset` on it is the same (positive) or may not be (negative, as a distance); undefined: `load` is due. */
  now(offset: number): number | undefined {
    if (this.#versions === undefined) return Number.MAX_SAFE_INTEGER
    if (offset >= this.#size) return -Number.MAX_SAFE_INTEGER
    if (offset < this.#start || offset >= this.#end) return undefined
    if (this.#next > 0 && offset < (this.#ranges[this.#next - 1]?.offset ?? 0)) this.#next = 0
    for (; this.#next < this.#ranges.length; this.#next++) {
      const range = this.#ranges[this.#next]!
      if (offset < range.offset) return range.offset - offset
      if (offset < range.offset + range.length) return offset - (range.offset + range.length)
    }
    return this.#end - offset
  }

  /** As `now`, finding out what it takes. */
  async at(offset: number): Promise<number> {
    await this.#load(offset)
    return this.now(offset) ?? this.at(offset)
  }

  async #load(offset: number): Promise<void> {
    const [a, b] = this.#versions!
    const view = (a.snapshot ?? b.snapshot) as SnapshotView
    const other = a.snapshot === undefined ? undefined : b.snapshot
    const { ranges, end } = await view.changes(other, offset, this.#size - offset)
    this.#ranges = ranges
    this.#start = offset
    this.#end = end
    this.#next = 0
  }
}

const BATCH = 1024

async function* tableDifferences(
  { upper, whole, below }: Pair,
  common: number,
  total: number,
  { signal, onProgress }: LongWork,
): AsyncGenerator<readonly ChangedExtent[], void> {
  const [upperA, upperB] = upper
  const [wholeA, wholeB] = whole
  let found: ChangedExtent[] = []
  for (let at = 0; at < common; ) {
    const pause = breathe(signal)
    if (pause !== undefined) {
      onProgress?.({ done: at, total })
      await pause
    }
    const a = upperA.now(at, common) ?? (await upperA.at(at, common))
    const b = upperB.now(at, common) ?? (await upperB.at(at, common))
    let end = Math.min(a.end, b.end)
    if (a.kind === 'below' && b.kind === 'below') {
      const shared = below.now(at) ?? (await below.at(at))
      end = Math.min(end, at + Math.abs(shared))
      if (shared > 0) {
        at = end
        continue
      }
    }
    const placeA = wholeA.now(at, end) ?? (await wholeA.at(at, end))
    const placeB = wholeB.now(at, end) ?? (await wholeB.at(at, end))
    end = Math.min(placeA.end, placeB.end)
    if (!isSamePlace(placeA, placeB)) {
      addChange(found, at, end, isZero(placeB) ? 'zero' : 'data')
      if (found.length > BATCH) {
        yield found.slice(0, -1)
        found = found.slice(-1)
      }
    }
    at = end
  }
  if (found.length > 0) yield found
}

/** What no layer holds reads as zeroes. */
function isZero({ kind }: Place): boolean {
  return kind !== 'data'
}

function isSamePlace(a: Place, b: Place): boolean {
  if (isZero(a) || isZero(b)) return isZero(a) && isZero(b)
  return a.offset === b.offset && a.compressed === b.compressed && a.file === b.file
}
