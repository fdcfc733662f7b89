/** An open chain: its layers, active first, and their end. Opening one is open.ts's affair. */

import { type CowpointError, IoError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import type { Qcow2Image } from '../qcow2/index.ts'
import type { FileDevice } from '../storage/index.ts'
import type { Format } from './driver.ts'
import type { Location } from './location.ts'

/** How a layer names the one below it. */
export interface BackingName {
  /** As the image has it. */
  readonly name: string
  readonly format: string | undefined
  /** Seen from where the layer was opened: `full-backing-filename` in qemu-img's output. */
  readonly fullName: string
}

/** One image of a chain. */
export interface Layer {
  readonly location: Location
  /** As qemu-img prints it: a path, or a canonical `json:` name. */
  readonly filename: string
  /** Of the file, as it was opened. */
  readonly path: string
  readonly format: Format
  /** `file format` in qemu-img's output: the format, or `file` where a `json:` name asks for the file itself. */
  readonly driver: string
  /** What the layer reads as together with all below it: the image, or the raw disk. */
  readonly device: BlockDevice
  readonly image?: Qcow2Image
  /** What the image stands on; for a raw disk the same as `device`. Closed with the chain. */
  readonly file: BlockDevice
  /** The file of the host under all this, in which `file` begins at `fileOffset`. */
  readonly hostFile: FileDevice
  readonly fileOffset: number
  /** The external data file, and its name as qemu-img prints it. */
  readonly dataFile?: BlockDevice
  readonly dataFilename?: string
  readonly backing?: BackingName
}

/** A reference that could not be followed. */
export interface BrokenLink {
  /** Index of the layer whose reference it is. */
  readonly layerIndex: number
  readonly kind: 'backing' | 'data-file'
  /** As the layer has it. */
  readonly reference: string
  readonly error: CowpointError
}

/** Something about a chain that its user should know, though it opens. */
export interface ChainWarning {
  /** The base of the layer is not as the layer remembers it; the file of the layer could not be locked. */
  readonly code: 'BASE_CHANGED' | 'NOT_LOCKED'
  /** Index of the layer. */
  readonly layerIndex: number
  /** Of the layer, as qemu-img prints it. */
  readonly filename: string
  readonly message: string
}

/** Images that stand on each other, open. Closing it closes all of them. */
export class Chain implements AsyncDisposable {
  /** Active first; never empty. */
  readonly layers: readonly Layer[]
  /** What could not be opened, where the caller wanted to be told rather than refused; in the order of the layers. */
  readonly broken: readonly BrokenLink[]
  /** Files that could not be locked, and bases that are not as their overlays remember them (fingerprint.ts). */
  readonly warnings: readonly ChainWarning[]
  #closed: Promise<void> | undefined

  constructor(
    layers: readonly Layer[],
    broken: readonly BrokenLink[] = [],
    warnings: readonly ChainWarning[] = [],
  ) {
    this.layers = layers
    this.broken = broken
    this.warnings = warnings
  }

  /** The uppermost layer. */
  get active(): Layer {
    return this.layers[0] as Layer
  }

  /** What the whole chain reads as, and what writes go to. */
  get device(): BlockDevice {
    return this.active.device
  }

  /**
   * Closes every layer, from the active one down, whatever happens. Rejects with the error of a layer, or, where there are
   * several, with an IoError `CLOSE_FAILED` that has all of them as its cause.
   */
  close(): Promise<void> {
    this.#closed ??= closeAll(devicesOf(this.layers))
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** What layers hold open, in the order in which it is closed. */
export function devicesOf(layers: readonly Layer[]): BlockDevice[] {
  return layers.flatMap(({ device, dataFile }) =>
    dataFile === undefined ? [device] : [device, dataFile],
  )
}

/** Closes all in order, and only then tells what failed. */
export async function closeAll(devices: readonly BlockDevice[]): Promise<void> {
  const errors: unknown[] = []
  for (const device of devices) {
    try {
      await device.close()
    } catch (error) {
      errors.push(error)
    }
  }
  if (errors.length === 1) throw errors[0]
  if (errors.length > 1) {
    throw new IoError('CLOSE_FAILED', `close of ${errors.length} files failed`, {
      context: { failures: errors.slice(0, 20).map(String) },
      cause: new AggregateError(errors),
    })
  }
}
