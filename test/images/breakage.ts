/** The shape of a damage, and the short forms in which the lists of damages are written. */

import type { ImageBytes, Patch, PatchValue } from '../support/poke.ts'

/** One damage. Patches that depend on where things lie are a function of the whole image. */
export interface Breakage {
  readonly name: string
  readonly shows: string
  /** The whole image that is damaged. */
  readonly base: string
  readonly structure: string
  readonly field: string
  readonly patches: readonly Patch[] | ((image: ImageBytes) => readonly Patch[])
  /** Also try every snapshot. */
  readonly withSnapshots?: boolean
}

export type Patches = Breakage['patches']

/** A group of damages to one structure of one image: name and field, what it shows, patches. */
export function damages(
  structure: string,
  base: string,
  list: readonly (readonly [name: string, field: string, shows: string, patches: Patches])[],
  options: { readonly withSnapshots?: boolean } = {},
): Breakage[] {
  return list.map(([name, field, shows, patches]) => ({
    ...{ name, shows, base, structure, field, patches },
    ...options,
  }))
}

/** A header field set to a value. */
export function header(
  field: Extract<Patch, { header: unknown }>['header'],
  value: PatchValue,
): Patch {
  return { header: field, value }
}

/** An offset as a table entry, with flags, as hexadecimal. */
export function entry(offset: number | bigint, flags = 0n): string {
  return `0x${(BigInt(offset) | flags).toString(16)}`
}

/** Bit 63: the cluster has a refcount of one. */
export const COPIED = 1n << 63n
/** Bit 62: the cluster is compressed. */
export const COMPRESSED = 1n << 62n
