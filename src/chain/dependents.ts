/**
 * Who has a file in its chain: every image in its folder, and in folders that the caller names, that stands on it directly or
 * through others. A file is known by device and inode, not by its names. What lies elsewhere is not found.
 */

import { resolve } from 'node:path'
import { CowpointError } from '../base/errors.ts'
import { readSnapshots, type SnapshotRecord } from '../qcow2/index.ts'
import { FileDevice, type FileStat, type FileSystem, nodeFiles } from '../storage/index.ts'
import {
  FolderScan,
  type ScanLimits,
  type ScannedImage,
  type ScannedReference,
  type SkippedFile,
} from './folder-scan.ts'
import type { Gate } from './gate.ts'
import { folderOf } from './reference.ts'

/** Where dependents are looked for, and how long. */
export interface DependentOptions extends Partial<ScanLimits> {
  /** Folders to look through besides that of the file; not those in them. */
  readonly folders?: readonly string[]
  /**
   * With it, images outside those folders that one inside them stands on are looked at too, where it lets them through. Without
   * it no file is opened that only an image names.
   */
  readonly gate?: Gate
}

/** An image that has the file in its chain. */
export interface Dependent {
  readonly path: string
  /** Its other names among those that were found (hard and symbolic links). */
  readonly otherPaths: readonly string[]
  readonly stat: FileStat
  /** How many links lie between it and the file: 1 for one that names it. */
  readonly depth: number
  /** The file that it stands on directly, of those in question: the file itself or another dependent. */
  readonly below: string
  /** Its name for that file, and what kind of link it is. */
  readonly reference: ScannedReference
  /** Virtual size in bytes. */
  readonly size: number
  /** Its internal snapshots; they read the file as well, where they hold nothing themselves. */
  readonly snapshots: readonly SnapshotRecord[]
}

/** What `findDependents` found. */
export interface Dependents {
  readonly path: string
  readonly stat: FileStat
  /** Nearest first, then by path. */
  readonly dependents: readonly Dependent[]
  /** Every image that was looked at, dependent or not. */
  readonly images: readonly ScannedImage[]
  readonly skipped: readonly SkippedFile[]
  /** Whether all files of all folders were looked at. */
  readonly isComplete: boolean
}

/**
 * Finds the images that have the file at `path` in their chain. Reads headers only, and the snapshot tables of those that it
 * found. Rejects where there is no such file, or the signal is aborted; what cannot be read elsewhere is in `skipped`.
 */
export async function findDependents(
  path: string,
  options: DependentOptions = {},
): Promise<Dependents> {
  const files = options.files ?? nodeFiles
  const stat = await files.stat(path)
  const scan = new FolderScan({ ...options, files })
  for (const { folder, named } of await foldersOf(files, path, options.folders ?? [])) {
    await scan.addFolder(folder, { devices: named || !isDeviceFolder(folder) })
  }
  if (options.gate !== undefined) await lookFurther(scan, files, options.gate, folderOf(path))
  const dependents: Dependent[] = []
  for (const found of climb(path, stat, scan.images)) {
    dependents.push({ ...found, snapshots: await snapshotsOf(files, found.path, scan) })
  }
  const { images, skipped, isComplete } = scan
  return { path, stat, dependents, images, skipped, isComplete }
}

/** Opening what lies there can do more than read. */
function isDeviceFolder(folder: string): boolean {
  return folder === '/dev' || folder.startsWith('/dev/')
}

interface SearchedFolder {
  readonly folder: string
  readonly named: boolean
}

/** The folder of the name, that of the file where the name is a link, and the named ones; each once. */
async function foldersOf(
  files: FileSystem,
  path: string,
  named: readonly string[],
): Promise<SearchedFolder[]> {
  const real = await files.realpath(path)
  const wanted = [
    ...named.map((folder) => ({ folder, named: true })),
    { folder: folderOf(path) || '.', named: false },
    { folder: folderOf(real) || '.', named: false },
  ]
  const seen = new Map<string, SearchedFolder>()
  for (const one of wanted) {
    let key = resolve(one.folder)
    try {
      key = await files.realpath(one.folder)
    } catch (error) {
      // A folder that cannot be listed is noted when it is looked through.
      if (!(error instanceof CowpointError)) throw error
    }
    const before = seen.get(key)
    // The user's own way to write a folder gives the names that the user knows.
    if (before === undefined || !one.named) {
      seen.set(key, { folder: before?.folder ?? one.folder, named: before?.named ?? one.named })
    }
  }
  return [...seen.values()]
}

/** What tells whether two names are one file. */
export function fileKey({ dev, ino }: Pick<FileStat, 'dev' | 'ino'>): string {
  return `${dev}:${ino}`
}

/** Looks at images that others stand on and that lie in no folder that was scanned. */
async function lookFurther(
  scan: FolderScan,
  files: FileSystem,
  gate: Gate,
  homeFolder: string,
): Promise<void> {
  const seen = new Set(scan.images.map(({ stat }) => fileKey(stat)))
  // The list grows while it is gone through.
  for (const image of scan.images) {
    for (const { kind, path, stat } of image.references) {
      if (kind !== 'backing' || stat === undefined || seen.has(fileKey(stat))) continue
      seen.add(fileKey(stat))
      try {
        const what = 'backing file'
        const admitted = await gate.admit({ files, path, homeFolder: homeFolder || '.', what })
        await scan.addFile(admitted, { devices: true })
      } catch (error) {
        scan.skip(path, error)
      }
    }
  }
}

type Found = Omit<Dependent, 'snapshots'>

/** From the file upward, breadth first, so that a loop of names ends and each image comes once. */
function climb(path: string, stat: FileStat, images: readonly ScannedImage[]): Found[] {
  const above = new Map<string, { image: ScannedImage; reference: ScannedReference }[]>()
  const names = new Map<string, string[]>()
  for (const image of images) {
    const key = fileKey(image.stat)
    names.set(key, [...(names.get(key) ?? []), image.path])
    for (const reference of image.references) {
      if (reference.stat === undefined) continue
      const below = fileKey(reference.stat)
      above.set(below, [...(above.get(below) ?? []), { image, reference }])
    }
  }
  const found: Found[] = []
  const seen = new Set([fileKey(stat)])
  let level = [{ key: fileKey(stat), path }]
  for (let depth = 1; level.length > 0; depth++) {
    const next: typeof level = []
    for (const below of level) {
      for (const { image, reference } of above.get(below.key) ?? []) {
        const key = fileKey(image.stat)
        if (seen.has(key)) continue
        seen.add(key)
        next.push({ key, path: image.path })
        found.push({
          ...{ path: image.path, stat: image.stat, depth, below: below.path, reference },
          otherPaths: (names.get(key) ?? []).filter((name) => name !== image.path),
          size: image.header.size,
        })
      }
    }
    level = next
  }
  return found
}

async function snapshotsOf(
  files: FileSystem,
  path: string,
  scan: FolderScan,
): Promise<readonly SnapshotRecord[]> {
  const image = scan.images.find((one) => one.path === path)
  if (image === undefined || image.header.snapshotCount === 0) return []
  try {
    await using file = await FileDevice.open(files, path)
    return await readSnapshots(file, image.header)
  } catch (error) {
    scan.skip(path, error)
    return []
  }
}
