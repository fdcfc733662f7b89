/** The files below an image that is about to be created: whether they can be opened, how big they are, and that it is none of them. */

import { dirname, resolve } from 'node:path'
import { CowpointError, UsageError } from '../../base/errors.ts'
import type { LongWork } from '../../base/progress.ts'
import { type Chain, fingerprintOf, folderOf, joinPath, protocolOf } from '../../chain/index.ts'
import type { HeaderExtension } from '../../qcow2/index.ts'
import { type FileStat, isSameFile, nodeFiles } from '../../storage/index.ts'
import { openImage } from './image-source.ts'

/** What an image that is about to be created names. */
export interface NewReferences {
  /** The image itself, which is emptied if it exists. */
  readonly name: string
  readonly backing: string
  readonly backingFormat: string | undefined
  /** Is emptied too. */
  readonly dataFile: string | undefined
  /** How much of the backing file the image is to remember. */
  readonly fingerprint: FingerprintWish
}

/** What an image can remember of its base: nothing, its size, time and tables, or besides those all that it reads as. */
export type FingerprintWish = 'none' | 'tables' | 'content'

/** What a new image takes over from the file below it. */
export interface BackingFacts {
  /** Virtual size in bytes. */
  readonly size: number
  /** What the image is to remember of it. */
  readonly fingerprint: HeaderExtension | undefined
}

/**
 * Looks at the backing file, named as the new image will name it. Opens the whole chain below. Rejects where a file of that chain
 * would be overwritten, and where the format is not given: a guest could make a raw disk look like another format.
 */
export async function lookAtBacking(
  references: NewReferences,
  work: LongWork = {},
): Promise<BackingFacts> {
  const { name, backing, backingFormat: format, dataFile, fingerprint: wish } = references
  const location = protocolOf(backing) === undefined ? joinPath(folderOf(name), backing) : backing
  // An image in use can get an overlay: what QEMU's create reads of it does not change.
  const source = { format, imageOpts: false, forceShare: true }
  await using chain = await openImage(location, source)
  await refuseOverwriting(chain, name, 'image')
  if (dataFile !== undefined) {
    await refuseOverwriting(chain, dataFilePath(name, dataFile), 'data file')
  }
  if (format === undefined) {
    throw new UsageError(
      'BACKING_FORMAT_REQUIRED',
      `Backing file specified without backing format (detected format of ${chain.active.format})`,
      { context: { backing, detected: chain.active.format } },
    )
  }
  const look = wish === 'content' ? { ...work, content: chain.device } : {}
  const fingerprint = wish === 'none' ? undefined : await fingerprintOf(chain.active, backing, look)
  return { size: chain.device.size, fingerprint }
}

/** Where the data file of the image `name` lies: beside it. */
function dataFilePath(name: string, dataFile: string): string {
  return resolve(dirname(name), dataFile)
}

/** Refuses an image that is its own data file. */
export async function refuseOwnDataFile(name: string, dataFile: string): Promise<void> {
  const path = dataFilePath(name, dataFile)
  const [image, data] = [await statAt(name), await statAt(path)]
  const same = image !== undefined && data !== undefined && isSameFile(image, data)
  if (!same && path !== resolve(name)) return
  throw new UsageError('DATA_FILE_IS_IMAGE', `data file '${dataFile}' is the image itself`)
}

async function refuseOverwriting(chain: Chain, path: string, what: string): Promise<void> {
  const target = await statAt(path)
  if (target === undefined) return
  for (const layer of chain.layers) {
    const files: FileStat[] = [await layer.hostFile.stat()]
    if (layer.dataFilename !== undefined) files.push(await nodeFiles.stat(layer.dataFilename))
    if (!files.some((file) => isSameFile(file, target))) continue
    throw new UsageError(
      'TARGET_IS_BACKING',
      `new ${what} would overwrite '${layer.filename}', which is part of its backing chain`,
      { context: { target: path, layer: layer.filename } },
    )
  }
}

async function statAt(path: string): Promise<FileStat | undefined> {
  try {
    return await nodeFiles.stat(path)
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
}
