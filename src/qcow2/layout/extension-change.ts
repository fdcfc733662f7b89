/** Changes of the list of header extensions that a verb makes along with its own, in the same switch of the header. */

import { EXTENSION } from './constants.ts'
import type { HeaderExtension } from './extensions.ts'

/** An extension that takes the place of the one of its type, or, without data, an end of that. */
export interface ExtensionChange {
  readonly type: number
  readonly data: Uint8Array | undefined
}

/** What a structural verb changes in the header besides its own affair, in the same switch. */
export interface HeaderNotes {
  /** Types that the format knows are not for this: bitmaps, data file, encryption, backing format. */
  readonly extensions?: readonly ExtensionChange[] | undefined
}

/** The list with the changes made; what is new comes before the feature names, which give way where there is little room. */
export function changedExtensions(
  list: readonly HeaderExtension[],
  changes: readonly ExtensionChange[],
): readonly HeaderExtension[] {
  let next = [...list]
  for (const { type, data } of changes) {
    const at = next.findIndex((one) => one.type === type)
    const others = next.filter((one) => one.type !== type)
    if (data === undefined) {
      next = others
      continue
    }
    const names = others.findIndex((one) => one.type === EXTENSION.featureNames)
    const place = at >= 0 ? at : names >= 0 ? names : others.length
    next = [...others.slice(0, place), { type, data }, ...others.slice(place)]
  }
  return next
}

/** As a field of a header change: left out where nothing changes. */
export function extensionsField(
  list: readonly HeaderExtension[],
  { extensions: changes = [] }: HeaderNotes,
): { readonly extensions?: readonly HeaderExtension[] } {
  return changes.length === 0 ? {} : { extensions: changedExtensions(list, changes) }
}
