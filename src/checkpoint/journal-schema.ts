/**
 * `journal.json` as data: the operation under way. Every step can be done again when it was done already. Steps that are done tell
 * it by what the files are: a journal never says how far it got. A verb adds its kinds of steps here and what they do in steps.ts.
 */

import * as z from 'zod/mini'
import { parseJson } from '../base/parse.ts'
import {
  DISK_LIMIT,
  idSchema as id,
  noteSchema,
  pathSchema,
  sizeSchema as size,
} from './note-schema.ts'

/** Relative to the catalogue's folder. */
const path = pathSchema
/** A layer's record as bytes in hexadecimal; null takes the record away. */
const record = z.nullable(z.string().check(z.regex(/^([0-9a-f]{2})*$/), z.maxLength(2048)))
const name = z.string().check(z.maxLength(512))

/** Puts a record into the header of a layer. */
const markStep = z.object({ do: z.literal('mark'), path, record })
/** Takes an internal snapshot, with the record of the layer as it is then. */
const snapshotStep = z.object({
  ...{ do: z.literal('snapshot'), path, id, name, record },
  time: size,
  /** The snapshot's private data in hexadecimal. */
  mark: z.string().check(z.regex(/^([0-9a-f]{2})*$/), z.maxLength(2048)),
})
/** Removes an internal snapshot, with the record of the layer as it is then. */
const dropSnapshotStep = z.object({ do: z.literal('drop-snapshot'), path, id, record })
/** Brings the active disk back to an internal snapshot; the operation's id in the record tells that it was done. */
const applyStep = z.object({ do: z.literal('apply'), path, id, record })
/** Gives an internal snapshot another name, parent or mark; `snapshot` says which one, by what identifies it now. */
const retitleStep = z.object({
  ...{ do: z.literal('retitle'), path, id, name: z.optional(name) },
  mark: z.optional(z.string().check(z.regex(/^([0-9a-f]{2})*$/), z.maxLength(2048))),
})
/** Has an overlay remember its base as it is now, after a header below it was changed. */
const rememberStep = z.object({ do: z.literal('remember'), path })
/** Gives a file a second name. */
const linkStep = z.object({ do: z.literal('link'), path, to: path, id: z.optional(id) })
/** Builds an empty overlay on `base`, under a name that nobody uses yet. */
const overlayStep = z.object({
  ...{ do: z.literal('overlay'), path, base: path, record },
  format: z.enum(['qcow2', 'raw']),
  /** Where the overlay will be, for a relative name of its base. */
  target: path,
  /** Enabled bitmaps of `base` are created again, empty. */
  bitmaps: z.boolean(),
})
/** Copies what an internal snapshot of `layer` reads, as far as that layer holds it, into a new layer on what it stands on. */
const extractStep = z.object({
  ...{ do: z.literal('extract'), path, layer: path, id, record, target: path },
})
/** Gives a file that was built under another name its own one; `id` is that of the operation in its record. */
const placeStep = z.object({
  ...{ do: z.literal('place'), path, to: path, id },
  /** Whether something that is there is replaced: the active path opens at every instant then. */
  replace: z.boolean(),
})
/** Removes a file that this operation made, or a second name that it gave. */
const unlinkStep = z.object({
  ...{ do: z.literal('unlink'), path },
  /** Only where it is the same file as this one. */
  sameAs: z.optional(path),
})
/** Moves a file that no view needs to the trash; `id` is that of the checkpoint in its record. */
const trashStep = z.object({ do: z.literal('trash'), path, to: path, id: z.optional(id) })
/** Pulls the layer at `layer` into the one at `path`; with `verify` content is compared. No record leaves the present one. */
const pullStep = z.object({
  ...{ do: z.literal('pull'), path, layer: path, record, verify: z.boolean() },
  format: z.enum(['qcow2', 'raw']),
})
/** Pushes the layer at `from` into the one at `path` below it, with the record that it has then; by that it is known. */
const pushStep = z.object({ do: z.literal('push'), path, from: path, record })
/** Gives what a layer was pushed into its size and its bitmaps. */
const settleStep = z.object({
  ...{ do: z.literal('settle'), path, from: path, verify: z.boolean() },
})
/** Puts the file at `path` in the place of the one at `to`, which goes to the trash. */
const replaceStep = z.object({ do: z.literal('replace'), path, to: path, trash: path })
/** Frees what only the disk of a layer holds, on which nobody stands any more. */
const emptyStep = z.object({ do: z.literal('empty'), path })
/** Makes a file shorter where that takes no more than moving so many bytes. */
const compactStep = z.object({ do: z.literal('compact'), path, limit: size })

const stepSchema = z.discriminatedUnion('do', [
  markStep,
  snapshotStep,
  dropSnapshotStep,
  applyStep,
  retitleStep,
  rememberStep,
  linkStep,
  overlayStep,
  extractStep,
  placeStep,
  unlinkStep,
  trashStep,
  pullStep,
  pushStep,
  settleStep,
  replaceStep,
  emptyStep,
  compactStep,
])

const operationSchema = z.object({
  format: z.literal('cowpoint-journal'),
  version: z.literal(1),
  id,
  verb: z.string().check(z.maxLength(64)),
  checkpoint: z.optional(z.object({ id, name })),
  /** What the catalogue will say of checkpoints, by id. */
  notes: z.optional(z.record(z.string(), noteSchema)),
  /** Active paths of disks that the catalogue is to know afterwards. */
  disks: z.optional(z.array(z.object({ id, path })).check(z.maxLength(DISK_LIMIT))),
  /** Bytes of space that the steps need which follow on the one that counts. */
  reserve: z.optional(size),
  steps: z.array(stepSchema).check(z.maxLength(100_000)),
  /** The first step that counts: once it is done there is only the way forward. */
  point: size,
  /** What takes back the steps before that one. */
  back: z.array(stepSchema).check(z.maxLength(100_000)),
})

/** One step of an operation. */
export type Step = z.infer<typeof stepSchema>
/** A step of one kind. */
export type StepOf<K extends Step['do']> = Extract<Step, { do: K }>
/** An operation under way: what the journal holds. */
export type Operation = Omit<z.infer<typeof operationSchema>, 'format' | 'version'>

/** Reads the text of the file; throws an ImageError, code `JOURNAL_DAMAGED`, where it is of another form. */
export function parseOperation(text: string): Operation {
  const options = { what: 'journal', origin: 'image', code: 'JOURNAL_DAMAGED' } as const
  const { format, version, ...operation } = parseJson(operationSchema, text, options)
  return operation
}
