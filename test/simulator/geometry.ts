/** Shapes of images on which workloads run. */

import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'

/** Options of a new image. */
export interface Geometry {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
  readonly compressionType?: 'zstd'
  /** Only for workloads that name it. */
  readonly isSpecial?: boolean
  /** Bytes of the disk. */
  readonly size: number
}

const KIB = 1024

/** All shapes; a workload takes all, or those that it names. */
export const GEOMETRIES: readonly Geometry[] = [
  { name: '512', clusterSize: 512, size: 96 * KIB },
  { name: '512-r64', clusterSize: 512, refcountBits: 64, size: 96 * KIB },
  { name: '4k', clusterSize: 4 * KIB, size: 256 * KIB },
  { name: '4k-r1', clusterSize: 4 * KIB, refcountBits: 1, size: 256 * KIB },
  { name: '4k-r8', clusterSize: 4 * KIB, refcountBits: 8, size: 256 * KIB },
  { name: '4k-v2', clusterSize: 4 * KIB, version: 2, size: 256 * KIB },
  { name: '16k-ext', clusterSize: 16 * KIB, extendedL2: true, size: 512 * KIB },
  {
    name: '4k-zstd',
    clusterSize: 4 * KIB,
    compressionType: 'zstd',
    isSpecial: true,
    size: 256 * KIB,
  },
  { name: '64k', clusterSize: 64 * KIB, size: 1024 * KIB },
  { name: '64k-ext', clusterSize: 64 * KIB, extendedL2: true, size: 1024 * KIB },
]

/** The geometry of a name. */
export function geometryNamed(name: string): Geometry {
  const found = GEOMETRIES.find((geometry) => geometry.name === name)
  if (found === undefined) throw new RangeError(`no geometry ${name}`)
  return found
}

/** Creates an image. */
export async function make(
  files: FileSystem,
  path: string,
  options: Parameters<typeof createQcow2>[1],
): Promise<void> {
  const device = await FileDevice.open(files, path, { create: 'new', growable: true })
  await createQcow2(device, options)
  await device.close()
}

/** Options of `createQcow2` for a geometry. */
export function optionsOf({
  name: _,
  isSpecial: __,
  ...options
}: Geometry): Parameters<typeof createQcow2>[1] {
  return options
}

/** Opens one image by itself, for writing unless told otherwise. */
export async function open(files: FileSystem, path: string, writable = true): Promise<Qcow2Image> {
  const device = await FileDevice.open(files, path, { writable, growable: writable })
  return Qcow2Image.open(device, { writable })
}
