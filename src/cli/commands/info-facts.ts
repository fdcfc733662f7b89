/**
 * What is known about one layer, in QEMU's words and in the order in which its tools print them; info-text.ts lays it
 * out for people, report.ts as JSON. Which layers there are is info.ts's affair.
 */

import { roundDown, roundUp } from '../../base/bytes.ts'
import type { ImageError } from '../../base/errors.ts'
import type { Layer } from '../../chain/index.ts'
import { describeImage, type Qcow2Description, type SnapshotRecord } from '../../qcow2/index.ts'

/** A value of the `Format specific information`: QEMU's names, in QEMU's order. */
export type Fact =
  | string
  | number
  | boolean
  | readonly Fact[]
  | { readonly [name: string]: Fact | undefined }

/** One layer as `info` shows it. */
export interface LayerFacts {
  readonly filename: string
  readonly format: string
  /** Whole sectors, as every other verb of QEMU's tools sees the disk. */
  readonly virtualSize: number
  /** Bytes that the file takes on the host, where that is known. */
  readonly actualSize: number | undefined
  readonly encrypted: boolean
  readonly clusterSize: number | undefined
  readonly dirty: boolean
  readonly backing: BackingFacts | undefined
  readonly snapshots: readonly SnapshotRecord[]
  /** Undefined for formats that have nothing to say. */
  readonly specific: { readonly [name: string]: Fact | undefined } | undefined
  /** What should be among the facts, and cannot be read. */
  readonly problems: readonly ImageError[]
  /** What the facts do not show and should be known. */
  readonly warnings: readonly string[]
}

/** The reference to the next layer. */
export interface BackingFacts {
  /** As the image has it. */
  readonly name: string
  readonly format: string | undefined
  /** As it would be opened from here; undefined where that cannot be told. */
  readonly fullName: string | undefined
}

const SECTOR = 512
/** The warning about bitmaps that count no more. */
export const STALE_BITMAPS =
  'a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent'

/** Collects the facts of a layer, as far as they can be read; see `problems`. */
export async function layerFacts(layer: Layer): Promise<LayerFacts> {
  const { filename, image } = layer
  const { allocated } = await layer.hostFile.stat()
  const common = {
    filename,
    format: layer.driver,
    // QEMU counts whole sectors: those that a raw file begins, those that an image has.
    virtualSize: (image === undefined ? roundUp : roundDown)(layer.device.size, SECTOR),
    actualSize: allocated,
  }
  if (image === undefined) {
    return {
      ...common,
      encrypted: false,
      clusterSize: undefined,
      dirty: false,
      backing: undefined,
      snapshots: [],
      specific: undefined,
      problems: [],
      warnings: [],
    }
  }
  const description = await describeImage(image)
  return {
    ...common,
    encrypted: description.encryption !== undefined,
    clusterSize: description.clusterSize,
    dirty: description.dirty,
    backing: layer.backing && backingFacts(layer, layer.backing),
    snapshots: image.snapshots,
    specific: qcow2Facts(description),
    problems: description.problems,
    warnings: description.staleBitmaps ? [STALE_BITMAPS] : [],
  }
}

function backingFacts(
  layer: Layer,
  { name, format, fullName }: NonNullable<Layer['backing']>,
): BackingFacts {
  // Beside an image that is no plain file there is no folder in which a relative name could stand.
  const unclear = layer.filename.startsWith('json:') && fullName !== name
  return { name, format, fullName: unclear ? undefined : fullName }
}

function qcow2Facts(description: Qcow2Description): { [name: string]: Fact | undefined } {
  const { dataFile, bitmaps, encryption } = description
  return {
    compat: description.version === 2 ? '0.10' : '1.1',
    'compression-type': description.compressionType,
    'lazy-refcounts': description.lazyRefcounts,
    bitmaps: bitmaps?.map(({ name, granularity, inUse, auto }) => ({
      flags: [...(inUse ? ['in-use'] : []), ...(auto ? ['auto'] : [])],
      name,
      granularity,
    })),
    'refcount-bits': description.refcountBits,
    'data-file': dataFile?.name,
    encrypt: encryption && encryptionFacts(encryption),
    'data-file-raw': dataFile?.raw,
    corrupt: description.corrupt,
    'extended-l2': description.extendedL2,
  }
}

function encryptionFacts(encryption: NonNullable<Qcow2Description['encryption']>): Fact {
  const luks = encryption.format === 'luks' ? encryption.luks : undefined
  return {
    'ivgen-alg': luks?.ivGenerator,
    'hash-alg': luks?.hash,
    'cipher-alg': luks?.cipher,
    uuid: luks?.uuid,
    'ivgen-hash-alg': luks?.ivHash,
    format: encryption.format,
    'cipher-mode': luks?.mode,
    slots: luks?.slots.map(({ active, iterations, keyOffset, stripes }) => ({
      active,
      iters: active ? iterations : undefined,
      'key-offset': keyOffset,
      stripes: active ? stripes : undefined,
    })),
    'payload-offset': luks?.payloadOffset,
    'master-key-iters': luks?.masterKeyIterations,
  } as Fact
}
