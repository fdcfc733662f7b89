/** What the catalogue and the journal both hold of a checkpoint, as schemas. Loaded with either of them only: zod takes its time. */

import * as z from 'zod/mini'

/** Entries of a list that a checkpoint has one of for each disk, at most. */
export const DISK_LIMIT = 1024

/** An id as it is stored. */
export const idSchema = z.string().check(z.regex(/^[0-9a-f]{32}$/))
/** A path of the host. */
export const pathSchema = z.string().check(z.minLength(1), z.maxLength(4096), z.regex(/^[^\0]+$/))
/** Bytes, or any other count. */
export const sizeSchema = z.number().check(z.int(), z.minimum(0))
/** Text for people. */
export const wordsSchema = z.string().check(z.maxLength(4096))

/** What a checkpoint keeps of the machine besides its disks. */
const stateFileSchema = z.object({
  path: pathSchema,
  size: sizeSchema,
  sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
  /** What is in it, as whoever recognised it calls that: `bhyve-memory`, `qemu-migration`, … */
  kind: z.string().check(z.maxLength(64)),
  /** A copy in the catalogue's folder, or the file where it was. */
  stored: z.enum(['copied', 'referenced']),
})

/** What only the catalogue has of a checkpoint. */
export const noteSchema = z.object({
  description: z.optional(wordsSchema),
  labels: z.optional(z.record(z.string().check(z.maxLength(128)), wordsSchema)),
  stateFiles: z.optional(z.array(stateFileSchema).check(z.maxLength(DISK_LIMIT))),
})

/** A file that belongs to a checkpoint; `path` is relative to the catalogue's folder, or absolute where it is referenced. */
export type StateFile = z.infer<typeof stateFileSchema>
/** What only the catalogue has of a checkpoint. */
export type CheckpointNote = z.infer<typeof noteSchema>
