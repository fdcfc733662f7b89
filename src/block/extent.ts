/** A byte range of one kind, as a device reports it. */

/**
 * `data` may hold anything; `zero` reads as zeroes and takes space; `hole` reads as zeroes and takes none.
 */
export type ExtentKind = 'data' | 'zero' | 'hole'

/** One run of bytes of one kind. */
export interface Extent {
  readonly offset: number
  readonly length: number
  readonly kind: ExtentKind
}

/** Adds `extent` to `list`, joining it with the last one where both are of one kind. */
export function appendExtent(list: Extent[], extent: Extent): void {
  const last = list.at(-1)
  if (
    last !== undefined &&
    last.kind === extent.kind &&
    last.offset + last.length === extent.offset
  ) {
    list[list.length - 1] = { ...last, length: last.length + extent.length }
  } else {
    list.push(extent)
  }
}
