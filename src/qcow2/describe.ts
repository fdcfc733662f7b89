/**
 * What a qcow2 image says about itself beyond its size: the facts that `info` prints. Reads the header, the bitmap
 * directory and the encryption header, never guest data; how facts are laid out is left to the reader.
 */

import { ImageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import type { BitmapRecord } from './layout/bitmap-directory.ts'
import { AUTOCLEAR, COMPATIBLE, EXTENSION, INCOMPATIBLE } from './layout/constants.ts'
import { encryptionHeader } from './layout/extensions.ts'
import {
  type CompressionType,
  findExtension,
  type Header,
  hasIncompatible,
} from './layout/header.ts'
import { LUKS_HEADER_LENGTH, type LuksHeader, parseLuksHeader } from './layout/luks-header.ts'

/** What is described: an open `Qcow2Image`. */
export interface DescribedImage {
  readonly header: Header
  readonly file: BlockDevice
  readonly encryption: 'aes' | 'luks' | undefined
  readonly dataFileReference: Qcow2Description['dataFile']
  bitmaps(): Promise<readonly BitmapRecord[]>
}

/** One persistent dirty bitmap in a description. */
export interface BitmapDescription {
  readonly name: string
  /** Guest bytes that one bit stands for. */
  readonly granularity: number
  /** Was not stored properly and can only be removed. */
  readonly inUse: boolean
  /** Enabled: writers record what they change. */
  readonly auto: boolean
}

/** How the guest data is encrypted; `luks` is absent where the LUKS header cannot be read. */
export type EncryptionDescription =
  | { readonly format: 'aes' }
  | { readonly format: 'luks'; readonly luks: LuksHeader | undefined }

/** Facts of the format. Those that version 2 cannot express are `undefined` there. */
export interface Qcow2Description {
  readonly version: 2 | 3
  readonly clusterSize: number
  readonly compressionType: CompressionType
  readonly refcountBits: number
  /** Refcounts may be out of date: the image was not closed. */
  readonly dirty: boolean
  readonly lazyRefcounts: boolean | undefined
  readonly corrupt: boolean | undefined
  readonly extendedL2: boolean | undefined
  readonly dataFile: { readonly name: string | undefined; readonly raw: boolean } | undefined
  /** `undefined` where the image has no bitmaps. */
  readonly bitmaps: readonly BitmapDescription[] | undefined
  /** There are bitmaps, but they do not count: somebody who knows none has written since. */
  readonly staleBitmaps: boolean
  readonly encryption: EncryptionDescription | undefined
  /** What is too broken to be described: the bitmap directory, the encryption header. */
  readonly problems: readonly ImageError[]
}

/** Describes an open image, as far as it can be read; see `problems`. */
export async function describeImage(image: DescribedImage): Promise<Qcow2Description> {
  const { header } = image
  const modern = header.version === 3
  const problems: ImageError[] = []
  const bitmaps = (await attempt(problems, () => describeBitmaps(image))) ?? []
  const luks = await attempt(problems, () => readLuksHeader(image))
  return {
    version: header.version,
    clusterSize: 2 ** header.clusterBits,
    compressionType: header.compressionType,
    refcountBits: 2 ** header.refcountOrder,
    dirty: hasIncompatible(header, INCOMPATIBLE.dirty),
    lazyRefcounts: modern
      ? (header.compatibleFeatures & COMPATIBLE.lazyRefcounts) !== 0n
      : undefined,
    corrupt: modern ? hasIncompatible(header, INCOMPATIBLE.corrupt) : undefined,
    extendedL2: modern ? hasIncompatible(header, INCOMPATIBLE.extendedL2) : undefined,
    dataFile: image.dataFileReference,
    bitmaps: bitmaps.length === 0 ? undefined : bitmaps,
    staleBitmaps: !bitmapsCount(header) && findExtension(header, EXTENSION.bitmaps) !== undefined,
    encryption:
      image.encryption === 'luks'
        ? { format: 'luks', luks }
        : image.encryption && { format: image.encryption },
    problems,
  }
}

async function attempt<T>(problems: ImageError[], read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    problems.push(error)
    return undefined
  }
}

function bitmapsCount(header: Header): boolean {
  return (header.autoclearFeatures & AUTOCLEAR.bitmaps) !== 0n
}

async function describeBitmaps(image: DescribedImage): Promise<BitmapDescription[]> {
  if (!bitmapsCount(image.header)) return []
  const bitmaps = await image.bitmaps()
  return bitmaps.map(({ name, granularityBits, inUse, auto }) => ({
    name,
    granularity: 2 ** granularityBits,
    inUse,
    auto,
  }))
}

async function readLuksHeader(image: DescribedImage): Promise<LuksHeader | undefined> {
  if (image.encryption !== 'luks') return undefined
  const place = encryptionHeader(image.header.extensions)
  if (place === undefined || place.offset + LUKS_HEADER_LENGTH > image.file.size) {
    throw new ImageError('LUKS_HEADER', 'encryption header lies outside the file', {
      context: { structure: 'encryption header' },
    })
  }
  const bytes = new Uint8Array(LUKS_HEADER_LENGTH)
  await image.file.read(place.offset, bytes)
  return parseLuksHeader(bytes)
}
