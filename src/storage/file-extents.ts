/** Where a file has data and where it has holes, as far as its file system tells. */

import { appendExtent, type Extent } from '../block/index.ts'
import type { OpenFile } from './files.ts'
import { hostError } from './host-error.ts'

/**
 * After so many extents the answer stops short, so that one call on a file in shreds stays cheap.
 */
const LONGEST_LIST = 4096

/** Whether the file ends before that byte by now: what it has lost is no hole, and the read is to say so. */
function isLost(file: OpenFile, offset: number): boolean {
  const hole = file.nextHole(offset)
  return hole !== undefined && (hole < offset || hole === Number.POSITIVE_INFINITY)
}

/**
 * The extents of `[offset, offset + length)`; what lies past `fileSize` is a hole. A file that
 * cannot tell its holes is data throughout.
 */
export function fileExtents(
  file: OpenFile,
  fileSize: number,
  offset: number,
  length: number,
): readonly Extent[] {
  const list: Extent[] = []
  const end = offset + length
  const fileEnd = Math.min(end, fileSize)
  let at = offset
  try {
    while (at < fileEnd && list.length < LONGEST_LIST) {
      const data = file.nextData(at)
      if (data === undefined || (data >= fileEnd && isLost(file, fileEnd - 1))) {
        appendExtent(list, { offset: at, length: fileEnd - at, kind: 'data' })
        at = fileEnd
        break
      }
      if (data > at) {
        const stop = Math.min(data, fileEnd)
        appendExtent(list, { offset: at, length: stop - at, kind: 'hole' })
        at = stop
        if (at === fileEnd) break
      }
      const stop = Math.min(file.nextHole(at) ?? fileEnd, fileEnd)
      // A file that shrank meanwhile answers nonsense; what it has lost is for the read to report.
      const next = stop > at ? stop : fileEnd
      appendExtent(list, { offset: at, length: next - at, kind: 'data' })
      at = next
    }
  } catch (error) {
    throw hostError(error, 'search for holes', { offset: at })
  }
  if (at >= fileEnd && end > at) appendExtent(list, { offset: at, length: end - at, kind: 'hole' })
  return list
}
