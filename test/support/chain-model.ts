/**
 * What a tree of images must read as: for every file the bytes of its disk and of each internal snapshot, which bytes its
 * bitmaps must have noticed, and what it stands on. It knows no layers: contents are what is read through the whole chain.
 */

const SECTOR = 512

/** A bitmap in the model. */
export interface ModelBitmap {
  enabled: boolean
  readonly granularity: number
  /** One for each sector that must be dirty; more may be. */
  truth: Uint8Array
}

/** A file in the model. */
export class ModelFile {
  path: string
  readonly format: 'raw' | 'qcow2'
  content: Uint8Array
  base: ModelFile | undefined
  /** Where its guest data lies, if not in the file itself. */
  dataPath: string | undefined
  readonly snapshots = new Map<string, Uint8Array>()
  readonly bitmaps = new Map<string, ModelBitmap>()

  constructor(path: string, format: 'raw' | 'qcow2', content: Uint8Array, base?: ModelFile) {
    this.path = path
    this.format = format
    this.content = content
    this.base = base
  }

  /** This file and all that it stands on, uppermost first. */
  get chain(): ModelFile[] {
    return this.base === undefined ? [this] : [this, ...this.base.chain]
  }

  /** Makes the disk read as `content`; enabled bitmaps must notice what differs. */
  become(content: Uint8Array): void {
    const old = this.content
    this.content = content
    for (const bitmap of this.bitmaps.values()) {
      const truth = new Uint8Array(Math.ceil(content.length / SECTOR))
      truth.set(bitmap.truth.subarray(0, truth.length))
      if (bitmap.enabled) markChanged(truth, old, content)
      bitmap.truth = truth
    }
  }

  /** Changes a copy of the disk. */
  change(offset: number, bytes: Uint8Array): void {
    const content = this.content.slice()
    content.set(bytes, offset)
    this.become(content)
  }

  /** Gives the disk another size; what is new is zeroes. */
  resize(size: number): void {
    this.become(resized(this.content, size))
  }

  /** Takes note of an empty bitmap. */
  addBitmap(name: string, granularity: number, enabled: boolean): void {
    const truth = new Uint8Array(Math.ceil(this.content.length / SECTOR))
    this.bitmaps.set(name, { enabled, granularity, truth })
  }
}

function markChanged(truth: Uint8Array, old: Uint8Array, content: Uint8Array): void {
  for (let sector = 0; sector < truth.length; sector++) {
    const [from, to] = [sector * SECTOR, Math.min(content.length, (sector + 1) * SECTOR)]
    for (let at = from; at < to; at++) {
      if ((old[at] ?? 0) === content[at]) continue
      truth[sector] = 1
      break
    }
  }
}

/** The bytes in another length, zeroes behind them. */
export function resized(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(size)
  result.set(bytes.subarray(0, size))
  return result
}

/** The first sector that must be dirty in a bitmap and lies in none of the ranges. */
export function missedSector(
  { truth }: ModelBitmap,
  ranges: readonly { readonly offset: number; readonly length: number }[],
): number | undefined {
  const missed = truth.slice()
  for (const { offset, length } of ranges) {
    missed.fill(0, Math.floor(offset / SECTOR), Math.ceil((offset + length) / SECTOR))
  }
  const sector = missed.indexOf(1)
  return sector < 0 ? undefined : sector
}

/** A tree of files. */
export class ModelTree {
  readonly files: ModelFile[] = []

  /** The paths of all files, in order. */
  get paths(): string[] {
    return this.files.flatMap(({ path, dataPath }) => (dataPath ? [path, dataPath] : [path])).sort()
  }

  /** All that stand on a file, directly or through others. */
  above(file: ModelFile): ModelFile[] {
    return this.files.filter((one) => one !== file && one.chain.includes(file))
  }

  /** How many layers the longest chain through a file has above it. */
  heightAbove(file: ModelFile): number {
    return this.above(file).reduce((most, one) => Math.max(most, one.chain.indexOf(file)), 0)
  }

  /** Those that would read something else if `merged` went down into `base`, which `top` is committed to. */
  siblings(base: ModelFile, merged: readonly ModelFile[]): ModelFile[] {
    const top = merged[0]
    return this.above(base).filter(
      (one) => !merged.includes(one) && !(top !== undefined && one.chain.includes(top)),
    )
  }
}
