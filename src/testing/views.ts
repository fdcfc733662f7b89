/** How tests name what they look at: an image with all below it, or one of its internal snapshots. */

import { UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { type DiffView, familyLines, findFamily, openChain } from '../chain/index.ts'

/** An image by its path, or one of its internal snapshots, by name or id. */
export type ViewName = string | { readonly image: string; readonly snapshot?: string }

/** An open view. Closing it closes its chain. */
export interface OpenView extends DiffView, AsyncDisposable {
  readonly device: BlockDevice
}

/** Opens a view for reading. Rejects with a UsageError `SNAPSHOT_NOT_FOUND` where the image has no such snapshot. */
export async function openView(name: ViewName): Promise<OpenView> {
  const { image, snapshot: wanted } =
    typeof name === 'string' ? { image: name, snapshot: undefined } : name
  const chain = await openChain(image)
  if (wanted === undefined) {
    return { chain, device: chain.device, [Symbol.asyncDispose]: () => chain.close() }
  }
  try {
    const disk = chain.active.image
    const record =
      disk?.snapshots.find((one) => one.name === wanted) ??
      disk?.snapshots.find((one) => one.id === wanted)
    if (disk === undefined || record === undefined) {
      throw new UsageError('SNAPSHOT_NOT_FOUND', `image has no snapshot '${wanted}'`)
    }
    const device = await disk.openSnapshot(record)
    const close = async (): Promise<void> => {
      await device.close()
      await chain.close()
    }
    return { chain, snapshot: record, device, [Symbol.asyncDispose]: close }
  } catch (error) {
    await chain.close()
    throw error
  }
}

/** The path of the image that a view belongs to. */
export function imageOf(name: ViewName): string {
  return typeof name === 'string' ? name : name.image
}

/** A view as a message names it. */
export function nameOf(name: ViewName): string {
  return typeof name === 'string' || name.snapshot === undefined
    ? imageOf(name)
    : `snapshot '${name.snapshot}' of ${name.image}`
}

/** The files below and above an image as a tree, for the end of a message; empty where there is none to be drawn. */
export async function treeOf(name: ViewName): Promise<string> {
  try {
    const lines = familyLines(await findFamily([imageOf(name)]))
    return `\n\n${lines.join('\n')}`
  } catch {
    return ''
  }
}
