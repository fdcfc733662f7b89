/**
 * `catalogue.json` as data: its digest, its limits. It may come with images from anywhere, so nothing in it is believed
 * before it was checked, and no path in it leads anywhere before the catalogue has asked whether it may.
 */

import { ImageError } from '../base/errors.ts'
import { sha256 } from '../base/hash.ts'
import { type CatalogueEntry, type ManifestFile, parseManifest } from './manifest-schema.ts'
import type { CheckpointNote, StateFile } from './note-schema.ts'

export type { CatalogueEntry, CheckpointNote, StateFile }

/** Bytes of a catalogue at most. */
export const CATALOGUE_SIZE_LIMIT = 16 * 1024 * 1024

/** The catalogue's content. Paths are relative to the folder that `.cowpoint` is in. */
export type Manifest = Omit<ManifestFile, 'format' | 'version' | 'digest'>

/** What a folder without a catalogue has. */
export const EMPTY_MANIFEST: Manifest = { generation: 0, disks: [], checkpoints: [] }

/** The text of the file. */
export function encodeManifest({ generation, disks, checkpoints }: Manifest): Uint8Array {
  const body = { generation, disks, checkpoints }
  const digest = digestOf(body)
  const file = { format: 'cowpoint-catalogue', version: 1, digest, ...body } satisfies ManifestFile
  const text = JSON.stringify(file, undefined, 1)
  return new TextEncoder().encode(`${text}\n`)
}

/** Reads the text of the file; throws an ImageError, code `CATALOGUE_DAMAGED`, for anything else than a whole catalogue. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const file = parseManifest(new TextDecoder().decode(bytes))
  const { digest, generation, disks, checkpoints } = file
  const body = { generation, disks, checkpoints }
  if (digest !== digestOf(body)) {
    throw new ImageError('CATALOGUE_DAMAGED', 'catalogue does not fit its digest')
  }
  return body
}

/** The same for any order of keys. */
function digestOf(body: Manifest): string {
  const text = JSON.stringify(body, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
  return sha256(text)
}
