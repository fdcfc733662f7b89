/** The errors of a link in a chain: which layer's reference it is, and what is wrong with what it leads to. */

import { CowpointError, ImageError } from '../base/errors.ts'

/** A reference from one layer to another file. */
export interface Link {
  readonly kind: 'backing' | 'data-file'
  /** As the layer has it. */
  readonly reference: string
  /** The layer, as qemu-img prints its name. */
  readonly overlay: string
  readonly layerIndex: number
}

/** What a link leads to, in words. */
export function linkWords(kind: Link['kind']): string {
  return kind === 'backing' ? 'backing file' : 'data file'
}

/**
 * `cause` as an error of the link: of the same class and code, but `BACKING_NOT_FOUND` or `DATA_FILE_NOT_FOUND`, an ImageError,
 * where there is no such file. What is none of our errors comes back as it is.
 */
export function linkError(link: Link, cause: unknown): unknown {
  if (!(cause instanceof CowpointError)) return cause
  const subject = `${linkWords(link.kind)} '${link.reference}' of layer ${link.layerIndex}`
  const details = {
    context: {
      ...cause.context,
      layer: link.layerIndex,
      overlay: link.overlay,
      reference: link.reference,
    },
    cause,
  }
  if (cause.code === 'FILE_NOT_FOUND') {
    const code = link.kind === 'backing' ? 'BACKING_NOT_FOUND' : 'DATA_FILE_NOT_FOUND'
    return new ImageError(code, `${subject} does not exist`, details)
  }
  const Same = cause.constructor as typeof ImageError
  return new Same(cause.code, `${subject}: ${cause.message}`, details)
}
