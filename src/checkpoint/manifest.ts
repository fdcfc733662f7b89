/**
 * `catalogue.json` as data: its schema, its digest, its limits. It may come with images from anywhere, so nothing in it is believed
 * before it was checked, and no path in it leads anywhere before the catalogue has asked whether it may.
 */

import { createHash } from 'node:crypto'
import * as z from 'zod/mini'
import { ImageError } from '../base/errors.ts'
import { parseJson } from '../base/parse.ts'
import type { Consistency } from './record.ts'

/** Bytes of a catalogue at most. */
export const CATALOGUE_SIZE_LIMIT = 16 * 1024 * 1024
const FORMAT = 'cowpoint-catalogue'
const LIST_LIMIT = 65_536
const DISK_LIMIT = 1024

const id = z.string().check(z.regex(/^[0-9a-f]{32}$/))
const path = z.string().check(z.minLength(1), z.maxLength(4096), z.regex(/^[^\0]+$/))
const size = z.number().check(z.int(), z.minimum(0))
const words = z.string().check(z.maxLength(4096))

/** What a checkpoint keeps of the machine besides its disks. */
export const stateFileSchema = z.object({
  path,
  size,
  sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
  /** What is in it, as whoever recognised it calls that: `bhyve-memory`, `qemu-migration`, … */
  kind: z.string().check(z.maxLength(64)),
  /** A copy in the catalogue's folder, or the file where it was. */
  stored: z.enum(['copied', 'referenced']),
})

/** What only the catalogue has of a checkpoint. */
export const noteSchema = z.object({
  description: z.optional(words),
  labels: z.optional(z.record(z.string().check(z.maxLength(128)), words)),
  stateFiles: z.optional(z.array(stateFileSchema).check(z.maxLength(DISK_LIMIT))),
})

const placeSchema = z.object({
  disk: id,
  path,
  /** Id of the snapshot in the table; left out for a frozen layer. */
  snapshot: z.optional(z.string().check(z.maxLength(65_535))),
})

const checkpointSchema = z.extend(noteSchema, {
  id,
  name: words,
  parent: z.optional(id),
  /** Milliseconds since 1970. */
  time: size,
  consistency: z.enum(['unknown', 'crash', 'filesystem', 'memory'] satisfies Consistency[]),
  diskCount: size,
  places: z.array(placeSchema).check(z.maxLength(DISK_LIMIT)),
})

const manifestSchema = z.object({
  format: z.literal(FORMAT),
  version: z.literal(1),
  generation: size,
  digest: z.string(),
  disks: z.array(z.object({ id, path })).check(z.maxLength(LIST_LIMIT)),
  checkpoints: z.array(checkpointSchema).check(z.maxLength(LIST_LIMIT)),
})

/** A file that belongs to a checkpoint; `path` is relative to the catalogue's folder, or absolute where it is referenced. */
export type StateFile = z.infer<typeof stateFileSchema>
/** What only the catalogue has of a checkpoint. */
export type CheckpointNote = z.infer<typeof noteSchema>
/** A checkpoint as the catalogue remembers it. */
export type CatalogueEntry = z.infer<typeof checkpointSchema>
/** The catalogue's content. Paths are relative to the folder that `.cowpoint` is in. */
export type Manifest = Omit<z.infer<typeof manifestSchema>, 'format' | 'version' | 'digest'>

/** What a folder without a catalogue has. */
export const EMPTY_MANIFEST: Manifest = { generation: 0, disks: [], checkpoints: [] }

/** The text of the file. */
export function encodeManifest({ generation, disks, checkpoints }: Manifest): Uint8Array {
  const body = { generation, disks, checkpoints }
  const digest = digestOf(body)
  const text = JSON.stringify({ format: FORMAT, version: 1, digest, ...body }, undefined, 1)
  return new TextEncoder().encode(`${text}\n`)
}

/** Reads the text of the file; throws an ImageError, code `CATALOGUE_DAMAGED`, for anything else than a whole catalogue. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const text = new TextDecoder().decode(bytes)
  const options = { what: 'catalogue', origin: 'image', code: 'CATALOGUE_DAMAGED' } as const
  const { digest, generation, disks, checkpoints } = parseJson(manifestSchema, text, options)
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
  return createHash('sha256').update(text).digest('hex')
}
