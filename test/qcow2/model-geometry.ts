/**
 * The geometries that the model-based tests go through. Images of them are made in model-subject.ts.
 */

import fc from 'fast-check'

const KIB = 1024
const MIB = 1024 * KIB

/** What decides how an image is laid out. */
export interface Shape {
  readonly clusterSize: number
  readonly version: 2 | 3
  readonly refcountBits: number
  readonly extendedL2: boolean
  readonly compressionType: 'zlib' | 'zstd'
  readonly lazyRefcounts: boolean
  readonly backing: 'none' | 'short' | 'long' | 'qcow2'
  readonly data: 'inside' | 'external' | 'external-raw'
  /** Virtual size: 0 to 3 stand for sizes that suit the cluster size, most of them no multiple of it. */
  readonly sizeChoice: number
  /** A small disk, for many sequences in little time. */
  readonly small?: boolean
}

function shapeArbitraryOf(
  ...sizes: { readonly arbitrary: fc.Arbitrary<number>; readonly weight: number }[]
): fc.Arbitrary<Shape> {
  return fc
    .record({
      clusterSize: fc.oneof(...sizes),
      version: fc.constantFrom(3 as const, 3 as const, 2 as const),
      refcountBits: fc.constantFrom(16, 1, 2, 4, 8, 32, 64),
      extendedL2: fc.boolean(),
      compressionType: fc.constantFrom('zlib' as const, 'zstd' as const),
      lazyRefcounts: fc.boolean(),
      backing: fc.constantFrom('none', 'short', 'long', 'qcow2' as const),
      data: fc.constantFrom('inside', 'inside', 'inside', 'external', 'external-raw' as const),
      sizeChoice: fc.nat(3),
    })
    .map((shape) => possible(shape))
}

/** Any shape that the format has, each corner of it now and then. */
export const shapeArbitrary: fc.Arbitrary<Shape> = shapeArbitraryOf(
  { arbitrary: fc.constantFrom(512, 4 * KIB, 16 * KIB, 64 * KIB), weight: 11 },
  // Each step costs megabytes there.
  { arbitrary: fc.constant(2 * MIB), weight: 1 },
)

/** As `shapeArbitrary`, with small disks and few large clusters. */
export const smallShapeArbitrary: fc.Arbitrary<Shape> = shapeArbitraryOf(
  { arbitrary: fc.constantFrom(512, 1 * KIB, 2 * KIB, 4 * KIB), weight: 1600 },
  { arbitrary: fc.constantFrom(16 * KIB, 32 * KIB), weight: 320 },
  { arbitrary: fc.constant(64 * KIB), weight: 100 },
  { arbitrary: fc.constantFrom(256 * KIB, 2 * MIB), weight: 3 },
).map((shape) => ({ ...shape, small: true }))

/** The nearest shape that the format allows. */
export function possible(shape: Shape): Shape {
  const version = shape.version
  const isOld = version === 2
  return {
    ...shape,
    refcountBits: isOld ? 16 : shape.refcountBits,
    extendedL2: !isOld && shape.extendedL2 && shape.clusterSize >= 16 * KIB,
    compressionType: isOld ? 'zlib' : shape.compressionType,
    lazyRefcounts: !isOld && shape.lazyRefcounts,
    data: isOld ? 'inside' : shape.data,
    backing: !isOld && shape.data === 'external-raw' ? 'none' : shape.backing,
  }
}

const PLAIN: Shape = {
  clusterSize: 64 * KIB,
  version: 3,
  refcountBits: 16,
  extendedL2: false,
  compressionType: 'zlib',
  lazyRefcounts: false,
  backing: 'none',
  data: 'inside',
  sizeChoice: 0,
}

/** Shapes that every run of the tests goes through, by name. */
export const NAMED_SHAPES: Readonly<Record<string, Shape>> = {
  '64 KiB clusters': PLAIN,
  '512 B clusters over a long raw backing': {
    ...PLAIN,
    clusterSize: 512,
    backing: 'long',
    sizeChoice: 1,
  },
  '512 B clusters, 64-bit refcounts': { ...PLAIN, clusterSize: 512, refcountBits: 64 },
  '4 KiB clusters, 1-bit refcounts': { ...PLAIN, clusterSize: 4 * KIB, refcountBits: 1 },
  '4 KiB clusters, 2-bit refcounts, lazy': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    refcountBits: 2,
    lazyRefcounts: true,
  },
  '4 KiB clusters over qcow2 with others': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    backing: 'qcow2',
    sizeChoice: 2,
  },
  '64 KiB clusters, 8-bit refcounts, zstd, two L2 tables': {
    ...PLAIN,
    refcountBits: 8,
    compressionType: 'zstd',
    sizeChoice: 3,
  },
  '2 MiB clusters over a short raw backing': {
    ...PLAIN,
    clusterSize: 2 * MIB,
    backing: 'short',
    sizeChoice: 1,
  },
  'extended L2 of 16 KiB over qcow2': {
    ...PLAIN,
    clusterSize: 16 * KIB,
    extendedL2: true,
    backing: 'qcow2',
    sizeChoice: 1,
  },
  'extended L2 of 64 KiB, zstd': {
    ...PLAIN,
    extendedL2: true,
    compressionType: 'zstd',
    sizeChoice: 2,
  },
  'version 2': { ...PLAIN, version: 2, clusterSize: 4 * KIB, sizeChoice: 1 },
  'version 2 over a short raw backing': {
    ...PLAIN,
    version: 2,
    clusterSize: 512,
    backing: 'short',
    sizeChoice: 1,
  },
  'version 2 over a long raw backing': { ...PLAIN, version: 2, backing: 'long', sizeChoice: 1 },
  'external data file over a short backing': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    data: 'external',
    backing: 'short',
    sizeChoice: 1,
  },
  'external data file with extended L2': {
    ...PLAIN,
    clusterSize: 16 * KIB,
    extendedL2: true,
    data: 'external',
    sizeChoice: 1,
  },
  'raw external data file': { ...PLAIN, data: 'external-raw', sizeChoice: 1 },
}

/** How large the disk of a shape is. */
export function sizeOf(shape: Shape): number {
  const { clusterSize, extendedL2, sizeChoice, small = false } = shape
  const few = small ? Math.max(24 * KIB, 3 * clusterSize) : Math.max(160 * KIB, 5 * clusterSize)
  const reach = (clusterSize / (extendedL2 ? 16 : 8)) * clusterSize
  // Two L2 tables: cheap in entries, as nothing between the ends is written.
  const wide = Math.min(reach, 1024 * MIB) + 3 * clusterSize + 512
  const sizes = [few, few + 512, few + clusterSize - 512 * (clusterSize > 512 ? 1 : 0), wide]
  return sizes[sizeChoice] as number
}

/** Bytes that tell where they belong. */
export function stamped(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill((seed % 255) + 1)
  for (let at = 0; at < length; at += 64) bytes[at] = (seed * 31 + (at >>> 6) * 7) & 0xff
  return bytes
}
