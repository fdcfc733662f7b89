/** Tells on stderr which bases are not as the images on them remember them; stdout stays what qemu-img prints. */

import { CowpointError } from '../../base/errors.ts'
import { type Chain, compareNamedBase, type Layer } from '../../chain/index.ts'
import { type Header, readHeader } from '../../qcow2/index.ts'
import { nodeFiles } from '../../storage/index.ts'
import type { Context } from '../context.ts'

/** One line for each changed base of an open chain. */
export async function warnOfBases(chain: Chain, context: Context): Promise<void> {
  for (const { filename, message } of chain.warnings) await context.warn(message, filename)
}

/** A line where the base of an image that is open as bytes only has changed. */
export async function warnOfNamedBase(
  { file, path }: Layer,
  name: string,
  context: Context,
): Promise<void> {
  let header: Header
  try {
    header = (await readHeader(file)).header
  } catch (error) {
    // What is wrong with the header is for the check to tell.
    if (error instanceof CowpointError) return
    throw error
  }
  const change = await compareNamedBase(nodeFiles, path, header)
  if (change === undefined) return
  const { backingName } = header
  await context.warn(
    `backing file '${backingName}' is not as it was when the image was put on it: it ${change.message}`,
    name,
  )
}
