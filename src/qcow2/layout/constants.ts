/** The numbers of the format and the limits within which an image is accepted (docs/interop/qcow2.rst, block/qcow2.h of QEMU). */

/** `QFI\xfb`. */
export const MAGIC = 0x514649fb
/** The unit in which a disk writes atomically, and the unit of compressed lengths. */
export const SECTOR_SIZE = 512
/** Bytes of a version 2 header, which has no length field. */
export const VERSION_2_HEADER_LENGTH = 72
/** Bytes of a version 3 header at least. */
export const VERSION_3_HEADER_LENGTH = 104

/** Bits of `incompatible_features`. */
export const INCOMPATIBLE = {
  dirty: 1n,
  corrupt: 2n,
  dataFile: 4n,
  compressionType: 8n,
  extendedL2: 16n,
} as const
/** Every incompatible bit this engine understands. */
export const KNOWN_INCOMPATIBLE = 31n

/** Bits of `compatible_features`. */
export const COMPATIBLE = { lazyRefcounts: 1n } as const

/** Bits of `autoclear_features`. */
export const AUTOCLEAR = { bitmaps: 1n, dataFileRaw: 2n } as const
/** Every autoclear bit this engine keeps true. */
export const KNOWN_AUTOCLEAR = 3n

/** Types of header extensions. */
export const EXTENSION = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  dataFile: 0x44415441,
  /** Ours: what an overlay remembers of its base (docs/on-disk.md). */
  baseFingerprint: 0x43504246,
  /** Ours: which checkpoint a layer is, or stands on (docs/on-disk.md). */
  checkpoint: 0x4350434c,
} as const

/** Offsets of the fields that lie in header sector 0 and move together in one switch. */
export const FIELD = {
  version: 4,
  backingFileOffset: 8,
  backingFileSize: 16,
  size: 24,
  l1Size: 36,
  l1TableOffset: 40,
  refcountTableOffset: 48,
  refcountTableClusters: 56,
  snapshotCount: 60,
  snapshotsOffset: 64,
  incompatibleFeatures: 72,
  compatibleFeatures: 80,
  autoclearFeatures: 88,
  refcountOrder: 96,
  headerLength: 100,
} as const

/** High word of a table entry: the cluster is referenced once, and by the active table. */
export const HI_COPIED = 0x80000000
/** High word of an L2 entry: the cluster is compressed. */
export const HI_COMPRESSED = 0x40000000
/** High word of a table entry: the part that belongs to the offset. */
export const HI_OFFSET_MASK = 0x00ffffff
/** Low word of a table entry: the part that belongs to the offset. */
export const LO_OFFSET_MASK = 0xfffffe00
/** Low word of an L2 entry (8-byte entries only): reads as zeroes. */
export const LO_ZERO = 1

/** What is refused, in the order of the header; the same as QEMU's limits. */
export const LIMIT = {
  minimumClusterBits: 9,
  maximumClusterBits: 21,
  maximumRefcountOrder: 6,
  backingNameLength: 1023,
  backingFormatLength: 15,
  refcountTableSize: 8 * 1024 * 1024,
  l1Size: 32 * 1024 * 1024,
  snapshotCount: 65536,
  snapshotTableSize: 64 * 1024 * 1024,
  snapshotExtraSize: 1024,
  bitmapCount: 65535,
  bitmapDirectorySize: 1024 * 65535,
  bitmapNameLength: 1023,
  bitmapTableEntries: 0x8000000,
  bitmapSize: 0x20000000,
  bitmapGranularityBits: { minimum: 9, maximum: 31 },
  /** Beyond this a number is no longer exact; the format itself goes to 2^63. */
  virtualSize: Number.MAX_SAFE_INTEGER - 511,
} as const
