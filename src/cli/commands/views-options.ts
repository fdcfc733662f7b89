/** The options of the verbs that change what a file reads as, and the question that they all ask first (chain/views-guard.ts). */

import { folderOf, guardBase, joinPath, parseLocation, statOf } from '../../chain/index.ts'
import { nodeFiles } from '../../storage/index.ts'
import type { Context } from '../context.ts'
import { texts, toggle } from '../options.ts'

/** The row of `--search`, for verbs that look for images above a file. */
export const searchOption = {
  search: texts({
    flags: '--search',
    placeholder: 'folder',
    summary: "look for overlays in this folder too, besides the image's own; may be repeated",
  }),
} as const

/** The rows of the options, to be spread into a command's table. */
export const viewsOptions = {
  ...searchOption,
  unsafe: toggle({
    flags: '--unsafe',
    summary: 'do not look for overlays that this changes as well, as qemu-img does not',
  }),
} as const

/** As `viewsOptions`, for verbs that write a new image, perhaps over a file that others stand on. */
export const overwriteOptions = {
  search: viewsOptions.search,
  unsafe: toggle({
    flags: '--unsafe',
    summary: 'replace a file without looking for overlays that stand on it, as qemu-img does',
  }),
} as const

/** The values of `viewsOptions`. */
export interface ViewsWish {
  readonly search: readonly string[]
  readonly unsafe: boolean
}

/**
 * Refuses where images besides those excepted read the file at `path`, or may do so unseen; says on stderr what could not be opened.
 * `action` begins the message: `resize`.
 */
export async function guardViews(
  path: string,
  wish: ViewsWish,
  { action, except = [] }: { readonly action: string; readonly except?: readonly string[] },
  context: Context,
): Promise<void> {
  if (wish.unsafe) return
  const { signal } = context
  const found = await guardBase(path, { action, except, folders: wish.search, signal })
  for (const { path: place, reason, code } of found.skipped) {
    if (code === 'ACCESS_DENIED') await context.warn(`left out: ${reason}`, place)
  }
}

/**
 * As `guardViews`, before a new image takes the place of what is at `location`, and its data file that of another; what is not
 * there yet nobody reads.
 */
export async function guardOverwriting(
  location: string,
  wish: ViewsWish,
  { action, dataFile }: { readonly action: string; readonly dataFile?: string | undefined },
  context: Context,
): Promise<void> {
  if (wish.unsafe) return
  const { path } = parseLocation(location)
  const written = dataFile === undefined ? [path] : [path, joinPath(folderOf(path), dataFile)]
  for (const file of written) {
    if ((await statOf(nodeFiles, file))?.kind !== 'file') continue
    await guardViews(file, wish, { action: `${action} over ${file}` }, context)
  }
}
