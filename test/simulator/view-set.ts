/**
 * What can be seen of a state: for each image that somebody would open, the disk and its snapshots through all that lies below,
 * the bitmaps, and what is wrong with any of the files.
 */

import type { CrashDisk } from './crash-disk.ts'
import type { FileState } from './file-state.ts'
import { type WalkedBitmap, type WalkedImage, type WalkedView, walkImage } from './image-walk.ts'
import { ParsedTables } from './parsed-tables.ts'
import { besides } from './recording-files.ts'
import { SECTOR_SIZE, UNALLOCATED } from './sector.ts'
import { FOLDER } from './trace.ts'

/** An image that somebody opens. */
export interface ViewSpec {
  readonly name: string
  /** Where it may lie; at one of them it must open, and wherever it does it must read the same. */
  readonly paths: readonly string[]
  readonly format?: 'raw' | 'qcow2'
  /** It may be missing, or be no image yet. */
  readonly optional?: boolean
}

/** A bitmap with the view that it belongs to. */
export interface SeenBitmap extends WalkedBitmap {
  readonly view: string
}

/** What can be seen of a state. */
export interface ViewSet {
  readonly views: readonly WalkedView[]
  readonly bitmaps: readonly SeenBitmap[]
  /** Options of the format that verbs change. */
  readonly facts: readonly string[]
  readonly problems: readonly string[]
  readonly leaks: number
  /** A number for all that a reader can reach. */
  readonly reach: number
}

interface Resolved {
  /** Why it cannot be opened there. */
  readonly failure?: string | undefined
  readonly views: readonly WalkedView[]
  readonly image: WalkedImage | undefined
}

const DEPTH_LIMIT = 12
const MEMORY_LIMIT = 256

/** Collects views; keeps what it parsed for the next state. */
export class ViewCollector {
  readonly #specs: readonly ViewSpec[]
  readonly #tables = new ParsedTables()
  readonly #walked = new Map<string, WalkedImage>()

  constructor(specs: readonly ViewSpec[]) {
    this.#specs = specs
  }

  collect(disk: CrashDisk): ViewSet {
    const gathered = new Gathering(disk, (file, data) => this.#walk(disk, file, data))
    for (const spec of this.#specs) gathered.add(spec)
    return gathered.result()
  }

  #walk(disk: CrashDisk, file: FileState, data: FileState | undefined): WalkedImage {
    if (disk.files.size === 1) return walkImage(file, this.#tables, data)
    const key = `${file.id}:${file.key}:${data?.key}`
    let image = this.#walked.get(key)
    if (image === undefined) {
      if (this.#walked.size >= MEMORY_LIMIT) this.#walked.clear()
      image = walkImage(file, this.#tables, data)
      this.#walked.set(key, image)
    }
    return image
  }
}

class Gathering {
  readonly #disk: CrashDisk
  readonly #walk: (file: FileState, data: FileState | undefined) => WalkedImage
  readonly #views: WalkedView[] = []
  readonly #bitmaps: SeenBitmap[] = []
  readonly #facts: string[] = []
  readonly #problems: string[] = []
  readonly #checked = new Set<number>()
  #leaks = 0
  #reach = 0

  constructor(
    disk: CrashDisk,
    walk: (file: FileState, data: FileState | undefined) => WalkedImage,
  ) {
    this.#disk = disk
    this.#walk = walk
  }

  result(): ViewSet {
    return {
      views: this.#views,
      bitmaps: this.#bitmaps,
      facts: this.#facts,
      problems: this.#problems,
      leaks: this.#leaks,
      reach: this.#reach,
    }
  }

  add(spec: ViewSpec): void {
    const there = spec.paths.filter((path) => (this.#disk.names.get(path) ?? FOLDER) !== FOLDER)
    const all = there.map((path) => this.#resolve(path, spec.format, 0, spec))
    const [first, ...others] = all.filter(({ failure }) => failure === undefined)
    if (first === undefined || (spec.optional && isNoImage(first))) {
      const reason = all[0]?.failure ?? 'is at none of its places'
      if (!spec.optional) this.#problems.push(`${spec.name}: ${reason}`)
      return
    }
    for (const other of others) {
      if (!sameViews(first.views, other.views)) {
        this.#problems.push(`${spec.name} reads differently at its places`)
      }
    }
    for (const view of first.views) {
      this.#views.push({ ...view, label: `${spec.name} ${view.label}` })
    }
    for (const bitmap of first.image?.bitmaps ?? []) {
      this.#bitmaps.push({ ...bitmap, view: `${spec.name} active` })
    }
    const identity = first.image?.header?.identity
    if (identity !== undefined) this.#facts.push(`${spec.name} ${identity}`)
  }

  #file(path: string): FileState | undefined {
    return this.#disk.files.get(this.#disk.names.get(path) ?? 0)
  }

  #resolve(
    path: string,
    format: 'raw' | 'qcow2' | undefined,
    depth: number,
    spec: ViewSpec,
  ): Resolved {
    const file = this.#file(path)
    if (file === undefined || depth > DEPTH_LIMIT) {
      return { failure: `${path} cannot be opened`, views: [], image: undefined }
    }
    if (format === 'raw') return { views: [this.#raw(file)], image: undefined }
    const dataFile = this.#dataFileOf(file, path)
    const image = this.#walk(file, dataFile)
    if (spec.optional && depth === 0 && image.header === undefined) return { views: [], image }
    this.#count(file, path, image)
    const { backing } = image.header ?? {}
    if (backing === undefined) return { views: image.views, image }
    const below = this.#resolve(
      besides(path, backing.name),
      backing.format === 'raw' ? 'raw' : 'qcow2',
      depth + 1,
      spec,
    )
    const [base] = below.views
    const { failure } = below
    return { failure, views: image.views.map((view) => onTop(view, base)), image }
  }

  #dataFileOf(file: FileState, path: string): FileState | undefined {
    if (this.#disk.files.size === 1) return undefined
    const { header } = this.#walk(file, undefined)
    if (header?.dataFile === undefined) return undefined
    return this.#file(besides(path, header.dataFile))
  }

  /** Takes notice of what is wrong with a file, once. */
  #count(file: FileState, path: string, image: WalkedImage): void {
    if (this.#checked.has(file.id)) return
    this.#checked.add(file.id)
    for (const problem of image.problems) this.#problems.push(`${path}: ${problem}`)
    this.#leaks += image.leaks
    this.#reach = this.#reach * 31 + image.reach
    if (!Number.isSafeInteger(this.#reach)) this.#reach %= 2 ** 52
  }

  #raw(file: FileState): WalkedView {
    const count = Math.ceil(file.length / SECTOR_SIZE)
    const contents = file.contents.slice(0, count)
    if (!this.#checked.has(file.id)) {
      this.#checked.add(file.id)
      this.#reach = (this.#reach * 31 + file.key) % 2 ** 52
    }
    return { label: 'active', size: count * SECTOR_SIZE, contents }
  }
}

function isNoImage({ image, views }: Resolved): boolean {
  return image !== undefined ? image.header === undefined : views.length === 0
}

/** A view with what lies below it put in where it holds nothing itself. */
function onTop(view: WalkedView, base: WalkedView | undefined): WalkedView {
  const contents = view.contents.slice()
  for (let index = 0; index < contents.length; index++) {
    if (contents[index] === UNALLOCATED) contents[index] = base?.contents[index] ?? 0
  }
  return { ...view, contents }
}

/** Whether two lists of views are the same, contents included. */
export function sameViews(one: readonly WalkedView[], other: readonly WalkedView[]): boolean {
  if (one.length !== other.length) return false
  return one.every((view, index) => sameView(view, other[index] as WalkedView))
}

/** Whether two views have the same name, size and content. */
export function sameView(one: WalkedView, other: WalkedView): boolean {
  if (one.size !== other.size || one.label !== other.label) return false
  const [a, b] = [one.contents, other.contents]
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false
  return true
}

/** Whether no file is known to be damaged, or to have been left with refcounts that are to be counted anew. */
export function isSound(set: ViewSet): boolean {
  return set.problems.length === 0 && !set.facts.some((fact) => fact.includes('"isDirty":true'))
}
