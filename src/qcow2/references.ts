/** What a header says about other files, and about how guest data is kept. */

import { AUTOCLEAR, EXTENSION, INCOMPATIBLE } from './layout/constants.ts'
import { extensionText } from './layout/extensions.ts'
import { type Header, hasIncompatible } from './layout/header.ts'

/** What an image says lies below it; `format` is undefined where it leaves that open. */
export interface BackingReference {
  readonly name: string
  readonly format: string | undefined
}

/** Which file an image says its data is in; `raw` where that file can be read as the disk itself. */
export interface DataFileReference {
  readonly name: string | undefined
  readonly raw: boolean
}

/** The backing reference; undefined where there is none. */
export function backingReferenceOf(header: Header): BackingReference | undefined {
  const { backingName: name, extensions } = header
  if (name === undefined) return undefined
  return { name, format: extensionText(extensions, EXTENSION.backingFormat) }
}

/** The reference to the external data file; undefined for an image that holds its data itself. */
export function dataFileReferenceOf(header: Header): DataFileReference | undefined {
  if (!hasIncompatible(header, INCOMPATIBLE.dataFile)) return undefined
  const name = extensionText(header.extensions, EXTENSION.dataFile)
  return { name, raw: (header.autoclearFeatures & AUTOCLEAR.dataFileRaw) !== 0n }
}

/** How guest data is encrypted; undefined where it is not. */
export function encryptionOf({ cryptMethod }: Header): 'aes' | 'luks' | undefined {
  return cryptMethod === 0 ? undefined : cryptMethod === 1 ? 'aes' : 'luks'
}
