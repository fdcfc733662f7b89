/**
 * The files that belong together: what some images stand on, and everything that stands on that, as far as it lies in their
 * folders or in folders that the caller names. Only headers are read; `cowpoint chain` shows it.
 */

import { resolve } from 'node:path'
import { CowpointError, ImageError } from '../base/errors.ts'
import { looksLikeQcow2, readSnapshots, type SnapshotRecord } from '../qcow2/index.ts'
import { FileDevice, type FileStat, type FileSystem, nodeFiles } from '../storage/index.ts'
import { fileKey } from './dependents.ts'
import { compareNamedBase } from './fingerprint.ts'
import {
  FolderScan,
  type ScanLimits,
  type ScannedImage,
  type ScannedReference,
  type SkippedFile,
} from './folder-scan.ts'
import { Gate } from './gate.ts'
import { PROBE_SIZE, probeFormat } from './probe.ts'
import { folderOf } from './reference.ts'

/** Where a family is looked for. */
export interface FamilyOptions extends Partial<ScanLimits> {
  /** Folders to look through besides those of the files; not those in them. */
  readonly folders?: readonly string[]
  /** Which references of the named images are followed downward; those to files in their folders and below where left out. */
  readonly gate?: Gate
}

/** What became of a reference. `elsewhere`: it leads to no file of this host, or makes no sense. */
export type LinkState = 'good' | 'changed' | 'missing' | 'refused' | 'elsewhere' | 'loop'

/** A reference of a member. */
export interface FamilyLink {
  /** As the image has it. */
  readonly name: string
  readonly path: string
  readonly state: LinkState
  /** What there is to say where the state is not good; empty otherwise. */
  readonly message: string
  /** Index of the member that it leads to, if that is one. */
  readonly member: number | undefined
}

/** A file of the family. */
export interface FamilyMember {
  readonly path: string
  /** Its other names among those that were found. */
  readonly otherPaths: readonly string[]
  /** Whether the caller named it. */
  readonly asked: boolean
  /** `qcow2`, or what the first bytes look like: `raw` without a mark. */
  readonly format: string
  readonly stat: FileStat
  /** Virtual size in bytes; undefined for a format that is not read here. */
  readonly size: number | undefined
  /** How many files lie below it. */
  readonly depth: number
  readonly snapshots: readonly SnapshotRecord[]
  readonly backing: FamilyLink | undefined
  readonly dataFile: FamilyLink | undefined
}

/** The files, each after the one below it; and where the search fell short. */
export interface Family {
  readonly members: readonly FamilyMember[]
  readonly skipped: readonly SkippedFile[]
  readonly isComplete: boolean
}

/**
 * Finds the family of the images at `paths`. Rejects where one of those is not there or is a qcow2 image whose header is damaged;
 * everything else that is wrong is told in the links and in `skipped`.
 */
export async function findFamily(
  paths: readonly string[],
  options: FamilyOptions = {},
): Promise<Family> {
  const search = new FamilySearch(options)
  for (const path of paths) await search.descend(path)
  await search.scanFolders()
  return search.collect()
}

/** A file by its key, with what its header says if it is an image. */
interface Found {
  readonly path: string
  readonly stat: FileStat
  readonly image: ScannedImage | undefined
  readonly otherPaths: string[]
}

class FamilySearch {
  readonly #files: FileSystem
  readonly #gate: Gate
  readonly #scan: FolderScan
  readonly #folders: readonly string[]
  readonly #found = new Map<string, Found>()
  readonly #asked = new Set<string>()
  readonly #refused = new Map<string, string>()

  constructor(options: FamilyOptions) {
    this.#files = options.files ?? nodeFiles
    this.#gate = options.gate ?? new Gate()
    this.#scan = new FolderScan({ ...options, files: this.#files })
    this.#folders = options.folders ?? []
  }

  /** Takes a named image and what it stands on. */
  async descend(path: string): Promise<void> {
    const { isComplete } = this.#scan
    const homeFolder = folderOf(path) || '.'
    let next: string | undefined = path
    while (next !== undefined) {
      const stat: FileStat = await this.#files.stat(next)
      const key = fileKey(stat)
      if (next === path) this.#asked.add(key)
      if (this.#found.has(key)) return
      const image = await this.#look(next, next === path)
      this.#found.set(key, { path: next, stat, image, otherPaths: [] })
      const below = image === undefined ? undefined : linkOf(image, 'backing')
      next = below?.stat === undefined ? undefined : await this.#admit(below.path, homeFolder)
    }
    this.#scan.isComplete = isComplete
  }

  async #look(path: string, isAsked: boolean): Promise<ScannedImage | undefined> {
    const [before, skippedBefore] = [this.#scan.images.length, this.#scan.skipped.length]
    await this.#scan.addFile(path, { devices: true })
    const skipped = this.#scan.skipped[skippedBefore]
    if (isAsked && skipped !== undefined) {
      if (skipped.failure !== undefined) throw skipped.failure
      throw new ImageError('HEADER_UNREADABLE', `header cannot be read: ${skipped.reason}`)
    }
    return this.#scan.images[before]
  }

  async #admit(path: string, homeFolder: string): Promise<string | undefined> {
    try {
      const request = { files: this.#files, path, homeFolder, what: 'backing file' }
      await this.#gate.admit(request)
      const { kind } = await this.#files.stat(path)
      return kind === 'file' || kind === 'block-device' ? path : undefined
    } catch (error) {
      if (!(error instanceof CowpointError)) throw error
      this.#refused.set(path, error.message)
      return undefined
    }
  }

  /** Looks for what stands on the files so far, in their folders and the named ones. */
  async scanFolders(): Promise<void> {
    const seen = new Set<string>()
    const named = this.#folders.map((folder) => ({ folder, devices: true }))
    const own = [...this.#found.values()].map(({ path }) => {
      const folder = folderOf(path) || '.'
      return { folder, devices: !resolve(folder).startsWith('/dev') }
    })
    for (const { folder, devices } of [...named, ...own]) {
      const key = await this.#files.realpath(folder).catch(() => folder)
      if (seen.has(key)) continue
      seen.add(key)
      await this.#scan.addFolder(folder, { devices })
    }
    let isGrowing = true
    while (isGrowing) isGrowing = this.#takeOverlays()
  }

  /** Takes images that stand on a file that is in already; says whether there were any. */
  #takeOverlays(): boolean {
    const before = this.#found.size
    for (const image of this.#scan.images) {
      const key = fileKey(image.stat)
      const known = this.#found.get(key)
      if (known !== undefined) {
        const isNew = known.path !== image.path && !known.otherPaths.includes(image.path)
        if (isNew && resolve(known.path) !== resolve(image.path)) known.otherPaths.push(image.path)
        continue
      }
      const below = linkOf(image, 'backing')?.stat
      if (below === undefined || !this.#found.has(fileKey(below))) continue
      const { path, stat } = image
      this.#found.set(key, { path, stat, image, otherPaths: [] })
    }
    return this.#found.size > before
  }

  async collect(): Promise<Family> {
    const order = this.#inOrder()
    const index = new Map(order.map(({ key }, at) => [key, at]))
    const members: FamilyMember[] = []
    for (const { key, depth, closesLoop } of order) {
      const { path, stat, image, otherPaths } = this.#found.get(key) as Found
      const asked = this.#asked.has(key)
      const base = { path, stat, otherPaths, asked, depth }
      if (image === undefined) {
        const format = await this.#probe(path)
        const size = format === 'raw' ? stat.size : undefined
        const none = { snapshots: [], backing: undefined, dataFile: undefined }
        members.push({ ...base, format, size, ...none })
        continue
      }
      members.push({
        ...{ ...base, format: 'qcow2', size: image.header.size },
        snapshots: await this.#snapshots(image),
        backing: await this.#link(image, 'backing', index, closesLoop),
        dataFile: await this.#link(image, 'data-file', index, false),
      })
    }
    const { skipped, isComplete } = this.#scan
    return { members, skipped, isComplete }
  }

  /** Each file after the one below it, overlays of one file together; a loop is cut where it is met first. */
  #inOrder(): { key: string; depth: number; closesLoop: boolean }[] {
    const above = new Map<string | undefined, string[]>()
    for (const [key, { image }] of this.#found) {
      const below = image === undefined ? undefined : linkOf(image, 'backing')?.stat
      const belowKey = below === undefined ? undefined : fileKey(below)
      const parent = belowKey !== undefined && this.#found.has(belowKey) ? belowKey : undefined
      above.set(parent, [...(above.get(parent) ?? []), key])
    }
    const order: { key: string; depth: number; closesLoop: boolean }[] = []
    const placed = new Set<string>()
    const place = (first: string, closesLoop: boolean): void => {
      const waiting = [{ key: first, depth: 0 }]
      for (let one = waiting.pop(); one !== undefined; one = waiting.pop()) {
        if (placed.has(one.key)) continue
        placed.add(one.key)
        order.push({ ...one, closesLoop: closesLoop && one.key === first })
        const depth = one.depth + 1
        const overlays = (above.get(one.key) ?? []).map((key) => ({ key, depth }))
        const pathOf = ({ key }: { key: string }) => this.#found.get(key)?.path ?? ''
        overlays.sort((a, b) => (pathOf(a) < pathOf(b) ? 1 : -1))
        waiting.push(...overlays)
      }
    }
    for (const key of above.get(undefined) ?? []) place(key, false)
    for (const key of this.#found.keys()) if (!placed.has(key)) place(key, true)
    return order
  }

  async #link(
    image: ScannedImage,
    kind: ScannedReference['kind'],
    index: ReadonlyMap<string, number>,
    closesLoop: boolean,
  ): Promise<FamilyLink | undefined> {
    const reference = linkOf(image, kind)
    if (reference === undefined) return undefined
    const { name, path, stat } = reference
    const member = stat === undefined ? undefined : index.get(fileKey(stat))
    const state = (now: LinkState, message: string): FamilyLink => {
      return { name, path, member, state: now, message }
    }
    if (closesLoop) return state('loop', 'the file stands on itself')
    if (stat === undefined) {
      return /^[^/]*:/.test(name) && path === name
        ? state('elsewhere', 'leads to no file of this host')
        : state('missing', 'does not exist')
    }
    const refused = this.#refused.get(path)
    if (refused !== undefined) return state('refused', refused)
    if (kind === 'data-file' || member === undefined) return state('good', '')
    const change = await compareNamedBase(this.#files, image.path, image.header)
    return change === undefined ? state('good', '') : state('changed', change.message)
  }

  async #probe(path: string): Promise<string> {
    try {
      await using file = await FileDevice.open(this.#files, path)
      const bytes = new Uint8Array(Math.min(PROBE_SIZE, file.size))
      await file.read(0, bytes)
      return looksLikeQcow2(bytes) ? 'damaged qcow2' : probeFormat(bytes)
    } catch (error) {
      this.#scan.skip(path, error)
      return 'unreadable'
    }
  }

  async #snapshots({ path, header }: ScannedImage): Promise<readonly SnapshotRecord[]> {
    if (header.snapshotCount === 0) return []
    try {
      await using file = await FileDevice.open(this.#files, path)
      return await readSnapshots(file, header)
    } catch (error) {
      this.#scan.skip(path, error)
      return []
    }
  }
}

function linkOf(
  { references }: ScannedImage,
  kind: ScannedReference['kind'],
): ScannedReference | undefined {
  return references.find((one) => one.kind === kind && !one.nested)
}
