/** Reads persistent dirty bitmaps: directory, tables, bits. */

import type { BlockDevice } from '../../block/index.ts'
import { type BitmapRecord, parseBitmapDirectory } from '../layout/bitmap-directory.ts'
import { AUTOCLEAR } from '../layout/constants.ts'
import { bitmapsExtension } from '../layout/extensions.ts'
import type { Header } from '../layout/header.ts'

export type { BitmapRecord }

/** The directory of an image; empty where the bitmaps bit is clear. */
export async function readBitmapDirectory(
  file: BlockDevice,
  header: Header,
): Promise<readonly BitmapRecord[]> {
  const extension = bitmapsExtension(header.extensions)
  if (extension === undefined || (header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) return []
  const bytes = new Uint8Array(extension.directorySize)
  await file.read(extension.directoryOffset, bytes)
  return parseBitmapDirectory(bytes, extension.bitmapCount)
}
