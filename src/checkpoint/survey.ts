/**
 * What the images of some folders say about themselves: layers, what stands on what, records, internal snapshots. Only headers and
 * snapshot tables are read, and no file outside of the folders is opened because an image names it. What it means is tree.ts's affair.
 */

import { dirname, resolve } from 'node:path'
import { breathe } from '../base/breathe.ts'
import { CowpointError, IoError } from '../base/errors.ts'
import { FolderScan, fileKey, type ScannedImage, type SkippedFile, statOf } from '../chain/index.ts'
import { type Header, readSnapshots, type SnapshotRecord } from '../qcow2/index.ts'
import { FileDevice, type FileStat, type FileSystem } from '../storage/index.ts'
import { type LayerRecord, markOf, recordOf, type SnapshotMark } from './record.ts'

/** How the files are called that a verb builds before they get their names. */
export const TEMPORARY_SUFFIX = '.cowpoint-part'

/** An internal snapshot, and its mark if it has one. */
export interface SurveyedSnapshot {
  readonly record: SnapshotRecord
  readonly mark: SnapshotMark | undefined
}

/** One file that holds bytes of a disk. */
export interface SurveyedLayer {
  /** The same for all names of one file. */
  readonly key: string
  /** Absolute. */
  readonly path: string
  readonly otherPaths: readonly string[]
  /** `outside`: it lies in none of the folders and was not looked at. */
  readonly format: 'qcow2' | 'raw' | 'outside'
  readonly stat: FileStat
  /** Virtual size in bytes. */
  readonly size: number
  readonly header: Header | undefined
  readonly record: LayerRecord | undefined
  readonly snapshots: readonly SurveyedSnapshot[]
  /** What it stands on, as it names that; `key` is undefined where nothing is there. */
  readonly below:
    | { readonly name: string; readonly path: string; readonly key: string | undefined }
    | undefined
}

/** All layers that were found. */
export interface Survey {
  readonly layers: ReadonlyMap<string, SurveyedLayer>
  /** The layers that stand directly on one, by its key. */
  readonly overlays: ReadonlyMap<string, readonly SurveyedLayer[]>
  readonly skipped: readonly SkippedFile[]
  /** Whether all files of all folders were looked at. */
  readonly isComplete: boolean
}

/** Where is looked. */
export interface SurveyOptions {
  readonly files: FileSystem
  readonly folders: readonly string[]
  /** Files that are looked at wherever they lie; their folders too. Those that are not there are passed over. */
  readonly paths?: readonly string[]
  /** Those of them that are raw disks whatever they look like: a guest can make one look like an image. */
  readonly raw?: readonly string[]
  readonly signal?: AbortSignal | undefined
}

/**
 * Rejects with an IoError, code `SEARCH_INCOMPLETE`, where not all could be looked at: what was not may be a checkpoint, or an image
 * that stands on one.
 */
export function refuseIncomplete({ isComplete, skipped }: Survey): void {
  if (isComplete) return
  const { path = '', reason = '' } = skipped.at(-1) ?? {}
  throw new IoError(
    'SEARCH_INCOMPLETE',
    `images may have been missed, for ${path} could not be looked at: ${reason}`,
    { context: { path } },
  )
}

/** Looks at all images in the folders. Rejects only where it is aborted, or the host fails in an unforeseen way. */
export async function surveyFolders(options: SurveyOptions): Promise<Survey> {
  const { files, signal, paths = [] } = options
  const scan = new FolderScan({ files, signal })
  const folders = new Set([...options.folders, ...paths.map((path) => dirname(path))])
  for (const folder of folders) await scan.addFolder(resolve(folder), { devices: false })
  const layers = new Map<string, SurveyedLayer>()
  const raw = await rawKeys(options, scan)
  for (const image of scan.images) {
    const key = fileKey(image.stat)
    if (image.path.endsWith(TEMPORARY_SUFFIX) || raw.has(key)) continue
    const known = layers.get(key)
    if (known !== undefined) {
      layers.set(key, { ...known, otherPaths: [...known.otherPaths, image.path] })
      continue
    }
    layers.set(key, await layerOf(files, key, image, scan))
    await breathe(signal)
  }
  for (const path of paths) await addRaw(files, layers, resolve(path))
  await addBelow(files, layers, folders)
  return {
    layers,
    overlays: overlaysOf(layers),
    skipped: scan.skipped,
    isComplete: scan.isComplete,
  }
}

/** Files that the user, or an overlay on them, says are raw. */
async function rawKeys(
  { files, raw = [] }: SurveyOptions,
  scan: FolderScan,
): Promise<ReadonlySet<string>> {
  const keys = new Set<string>()
  for (const path of raw) {
    const stat = await statOf(files, path)
    if (stat !== undefined) keys.add(fileKey(stat))
  }
  for (const { kind, format, stat } of scan.images.flatMap(({ references }) => references)) {
    if (kind === 'backing' && format === 'raw' && stat !== undefined) keys.add(fileKey(stat))
  }
  return keys
}

async function layerOf(
  files: FileSystem,
  key: string,
  { path, stat, header, references }: ScannedImage,
  scan: FolderScan,
): Promise<SurveyedLayer> {
  const backing = references.find((one) => one.kind === 'backing' && !one.nested)
  const belowKey = backing?.stat === undefined ? undefined : fileKey(backing.stat)
  return {
    ...{ key, path, stat, header, otherPaths: [], format: 'qcow2', size: header.size },
    record: recordOf(header.extensions),
    snapshots: await snapshotsOf(files, path, header, scan),
    below:
      backing === undefined
        ? undefined
        : { name: backing.name, path: resolve(backing.path), key: belowKey },
  }
}

async function snapshotsOf(
  files: FileSystem,
  path: string,
  header: Header,
  scan: FolderScan,
): Promise<readonly SurveyedSnapshot[]> {
  if (header.snapshotCount === 0) return []
  try {
    await using file = await FileDevice.open(files, path)
    const records = await readSnapshots(file, header)
    return records.map((record) => ({ record, mark: markOf(record.unknownExtra) }))
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    scan.skip(path, error)
    // Checkpoints may be in it that nobody sees.
    scan.isComplete = false
    return []
  }
}

/** A named file that is no qcow2 image: a raw disk. */
async function addRaw(
  files: FileSystem,
  layers: Map<string, SurveyedLayer>,
  path: string,
): Promise<void> {
  const stat = await statOf(files, path)
  if (stat === undefined || (stat.kind !== 'file' && stat.kind !== 'block-device')) return
  const key = fileKey(stat)
  if (!layers.has(key)) layers.set(key, plainLayer(key, path, stat, 'raw'))
}

/** Files that layers stand on and that are no layers yet: raw disks in the folders, and what lies elsewhere. */
async function addBelow(
  files: FileSystem,
  layers: Map<string, SurveyedLayer>,
  folders: ReadonlySet<string>,
): Promise<void> {
  const inside = new Set([...folders].map((folder) => resolve(folder)))
  for (const { below } of [...layers.values()]) {
    if (below?.key === undefined || layers.has(below.key)) continue
    const stat = await files.stat(below.path)
    const format = inside.has(dirname(below.path)) ? 'raw' : 'outside'
    layers.set(below.key, plainLayer(below.key, below.path, stat, format))
  }
}

function plainLayer(
  key: string,
  path: string,
  stat: FileStat,
  format: 'raw' | 'outside',
): SurveyedLayer {
  const size = Math.ceil(stat.size / 512) * 512
  const none = { header: undefined, record: undefined, snapshots: [], below: undefined }
  return { key, path, otherPaths: [], format, stat, size, ...none }
}

function overlaysOf(
  layers: ReadonlyMap<string, SurveyedLayer>,
): ReadonlyMap<string, readonly SurveyedLayer[]> {
  const overlays = new Map<string, SurveyedLayer[]>()
  for (const layer of layers.values()) {
    const key = layer.below?.key
    if (key === undefined || key === layer.key) continue
    overlays.set(key, [...(overlays.get(key) ?? []), layer])
  }
  return overlays
}
