/** `check --verify-base`: whether the base of an image still reads as the image remembers it, byte for byte. */

import { UsageError } from '../../base/errors.ts'
import { compareBase, remembersContent } from '../../chain/index.ts'
import type { Context } from '../context.ts'
import { type ImageSource, openImage } from './image-source.ts'

/**
 * Reads the base of the image `name` with all below it; says on stderr where it has changed. Throws a UsageError, code
 * `CONTENT_UNKNOWN`, where the image remembers no content.
 */
export async function hasSameBase(
  name: string,
  source: ImageSource & { readonly quiet: boolean },
  context: Context,
): Promise<boolean> {
  await using chain = await openImage(name, source)
  const [{ image, backing }, below] = [chain.active, chain.layers[1]]
  if (image === undefined || below === undefined || !remembersContent(image.header)) {
    throw new UsageError('CONTENT_UNKNOWN', 'image remembers no content of a backing file')
  }
  const { signal } = context
  const display = { label: 'verify base', quiet: source.quiet }
  const change = await context.withProgress(display, (onProgress) =>
    compareBase(image.header, below, { content: below.device, signal, onProgress }),
  )
  if (change === undefined) return true
  await context.stderr.line(
    `ERROR backing file '${backing?.name}' is not as it was when the image was put on it: it ${change.message}`,
  )
  return false
}
