/** A range that is not the same in two views, and lists of such ranges. */

/** A range of guest bytes that is not the same in both views. */
export interface ChangedExtent {
  readonly offset: number
  readonly length: number
  /** `data`; `zero`: the second view reads as zeroes there; `size`: only one of the views is as long. */
  readonly kind: 'data' | 'zero' | 'size'
}

/** Adds `[from, to)` to `list`, joining it with the last one where both are of one kind. */
export function addChange(
  list: ChangedExtent[],
  from: number,
  to: number,
  kind: ChangedExtent['kind'],
): void {
  const last = list.at(-1)
  if (last?.kind === kind && last.offset + last.length === from) {
    list[list.length - 1] = { offset: last.offset, length: to - last.offset, kind }
  } else {
    list.push({ offset: from, length: to - from, kind })
  }
}
