/** Lets the host copy what a layer holds as plain data into another image's file, instead of passing it through this process. */

import type { DataTransfer } from '../qcow2/index.ts'
import type { FileDevice } from '../storage/index.ts'
import type { Layer } from './chain.ts'

/** How the host copies. */
export interface TransferOptions {
  /** Not at all where both files cannot share blocks: reading and writing may be quicker then. */
  readonly onlyShared?: boolean
}

/** As `transferBetween`, into the file of a layer. */
export function transferToLayer(
  source: Layer,
  target: Layer,
  options: TransferOptions = {},
): Partial<DataTransfer> {
  if (target.fileOffset !== 0 || target.file !== target.hostFile) return {}
  return transferBetween(source, target.hostFile, options) ?? {}
}

/**
 * The means to copy data of `source` into `target`; none where data lies elsewhere than in the layer's own file. Bytes of the
 * source count only as long as they lie where a plain read would find them.
 */
export function transferBetween(
  source: Layer,
  target: FileDevice,
  options: TransferOptions = {},
): DataTransfer | undefined {
  if (source.dataFile !== undefined || source.image?.encryption !== undefined) return undefined
  const placeOf = async (
    offset: number,
    length: number,
  ): Promise<{ readonly place: number; readonly length: number } | undefined> => {
    const { image, fileOffset, hostFile } = source
    if (image === undefined) {
      const inFile = Math.min(length, hostFile.size - fileOffset - offset)
      return inFile <= 0 ? undefined : { place: offset + fileOffset, length: inFile }
    }
    const mapping = await image.map(offset, Math.min(length, image.size - offset))
    if (mapping.kind !== 'normal') return undefined
    return { place: mapping.hostOffset + fileOffset, length: mapping.length }
  }
  return {
    plainLength: async (offset, length) => (await placeOf(offset, length))?.length ?? 0,
    transfer: async (offset, length, to) => {
      const found = await placeOf(offset, length)
      if (found === undefined) return 0
      const from = found.place
      return target.copyFrom(source.hostFile, { from, to, length: found.length }, options)
    },
  }
}
