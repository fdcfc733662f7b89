/** The schema of `catalogue.json`; what it means and what may be believed of it is in manifest.ts. */

import * as z from 'zod/mini'
import { parseJson } from '../base/parse.ts'
import {
  DISK_LIMIT,
  idSchema,
  noteSchema,
  pathSchema,
  sizeSchema,
  wordsSchema,
} from './note-schema.ts'
import type { Consistency } from './record.ts'

const LIST_LIMIT = 65_536

const placeSchema = z.object({
  disk: idSchema,
  path: pathSchema,
  /** Id of the snapshot in the table; left out for a frozen layer. */
  snapshot: z.optional(z.string().check(z.maxLength(65_535))),
})

const checkpointSchema = z.extend(noteSchema, {
  id: idSchema,
  name: wordsSchema,
  parent: z.optional(idSchema),
  /** Milliseconds since 1970. */
  time: sizeSchema,
  consistency: z.enum(['unknown', 'crash', 'filesystem', 'memory'] satisfies Consistency[]),
  diskCount: sizeSchema,
  places: z.array(placeSchema).check(z.maxLength(DISK_LIMIT)),
})

const manifestSchema = z.object({
  format: z.literal('cowpoint-catalogue'),
  version: z.literal(1),
  generation: sizeSchema,
  digest: z.string(),
  disks: z.array(z.object({ id: idSchema, path: pathSchema })).check(z.maxLength(LIST_LIMIT)),
  checkpoints: z.array(checkpointSchema).check(z.maxLength(LIST_LIMIT)),
})

/** A checkpoint as the catalogue remembers it. */
export type CatalogueEntry = z.infer<typeof checkpointSchema>
/** The file as it is written. */
export type ManifestFile = z.infer<typeof manifestSchema>

/** Reads the text of the file; throws an ImageError, code `CATALOGUE_DAMAGED`, where it is of another form. Its digest is not looked at. */
export function parseManifest(text: string): ManifestFile {
  const options = { what: 'catalogue', origin: 'image', code: 'CATALOGUE_DAMAGED' } as const
  return parseJson(manifestSchema, text, options)
}
