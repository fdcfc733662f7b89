/** The backing file of an image that is about to be created: whether it can be opened, and how big it is. */

import { UsageError } from '../../base/errors.ts'
import { openImage } from './image-source.ts'

/**
 * The virtual size of `backing`, named as an image `overlay` would name it. Opens the whole chain below. Rejects where the
 * format is not given: a guest could make a raw disk look like another format.
 */
export async function backingSize(
  overlay: string,
  backing: string,
  format: string | undefined,
): Promise<number> {
  const folder = overlay.slice(0, overlay.lastIndexOf('/') + 1)
  const plain = !backing.startsWith('/') && !/^[^:/]*:/.test(backing)
  const source = { format, imageOpts: false, forceShare: false }
  await using chain = await openImage(plain ? folder + backing : backing, source)
  if (format === undefined) {
    throw new UsageError(
      'BACKING_FORMAT_REQUIRED',
      `Backing file specified without backing format (detected format of ${chain.active.format})`,
      { context: { backing, detected: chain.active.format } },
    )
  }
  return chain.device.size
}
