/**
 * Images whose few bytes ask for much work: tables that are named a million times, tables that are not there, clusters that unpack to
 * a thousand times their size, chains without end. Each is made as a file, with holes where it has nothing.
 */

import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { inspect } from '../../src/chain/index.ts'
import { zstd } from '../../src/codec/zstd.ts'
import { buildImage } from '../support/image-builder.ts'
import { EXTENSIONS, HEADER_FIELDS, type HeaderField } from '../support/poke.ts'

/** One image, and why it is refused. */
export interface Amplifier {
  readonly name: string
  /** One of the codes that the inspection finds. */
  readonly code: string
  /** Makes the image in a folder; its path. */
  readonly make: (folder: string) => string | Promise<string>
  /** Inspects it at its path; throws where it is accepted or refused for another reason. */
  refuses(path: string): Promise<Refusal>
}

/** What a refusal took. */
export interface Refusal {
  readonly codes: readonly string[]
  readonly timeMs: number
  readonly readSize: number
}

const MIB = 1024 * 1024
const COPIED = 1n << 63n

/** Pieces of a file and where they lie. */
type Pieces = readonly (readonly [offset: number, bytes: Uint8Array])[]

function writePieces(path: string, size: number, pieces: Pieces): string {
  const file = openSync(path, 'w')
  try {
    ftruncateSync(file, size)
    for (const [offset, bytes] of pieces) writeSync(file, bytes, 0, bytes.length, offset)
  } finally {
    closeSync(file)
  }
  return path
}

/** A header cluster with the fields given; the rest as in any image of version 3 with clusters of 64 KiB. */
function header(fields: Partial<Record<HeaderField, number | bigint>>): Buffer {
  const bytes = Buffer.alloc(112)
  const all = {
    ...{ magic: 0x514649fb, version: 3, cluster_bits: 16, size: 64 * MIB, l1_size: 1 },
    ...{ l1_table_offset: 0x30000, refcount_table_offset: 0x10000, refcount_table_clusters: 1 },
    ...{ refcount_order: 4, header_length: 104 },
    ...fields,
  }
  for (const [name, value] of Object.entries(all)) {
    const [offset, width] = HEADER_FIELDS[name as HeaderField] ?? [0, 4]
    let rest = BigInt(value)
    for (let at = offset + width - 1; at >= offset; at--, rest >>= 8n) {
      bytes[at] = Number(rest & 0xffn)
    }
  }
  return bytes
}

/** A table of `count` entries. */
function table(count: number, entry: (index: number) => bigint): Buffer {
  const bytes = Buffer.alloc(count * 8)
  for (let index = 0; index < count; index++) bytes.writeBigUInt64BE(entry(index), index * 8)
  return bytes
}

const PIB = 2n ** 50n
const WIDEST_L1 = 4 * MIB

function amplifier(name: string, code: string, make: Amplifier['make']): Amplifier {
  return {
    name,
    code,
    make,
    async refuses(path) {
      const { verdict, findings, timeMs, readSize } = await inspect(path)
      const codes = [...new Set(findings.map((finding) => finding.code))]
      if (verdict !== 'refuse' || !codes.includes(code)) {
        throw new Error(`${name}: ${verdict}, ${codes.join(', ')} instead of ${code}`)
      }
      return { codes, timeMs, readSize }
    },
  }
}

/** Data clusters that are all one, or compressed clusters that all unpack from the same bytes. */
function sharedClusters(folder: string, entry: bigint, bytes: Uint8Array): string {
  const clusterSize = 2 * MIB
  const count = clusterSize / 8
  const fields = { cluster_bits: 21, size: BigInt(count) * BigInt(clusterSize) }
  return writePieces(join(folder, 'shared.qcow2'), 6 * clusterSize, [
    [
      0,
      header({ ...fields, l1_table_offset: 3 * clusterSize, refcount_table_offset: clusterSize }),
    ],
    [3 * clusterSize, table(1, () => COPIED | BigInt(4 * clusterSize))],
    [4 * clusterSize, table(count, () => entry)],
    [5 * clusterSize, bytes],
  ])
}

/** Every entry of the L1 table names the one L2 table. */
export function sharedL2(folder: string, entryCount: number): string {
  const length = entryCount * 8
  const l1 = Buffer.alloc(length)
  l1.writeBigUInt64BE(COPIED | BigInt(0x30000 + length), 0)
  l1.copy(l1, 8)
  for (let done = 8; done < length; done *= 2) l1.copy(l1, done, 0, done)
  return writePieces(join(folder, 'l1.qcow2'), 0x40000 + length, [
    [0, header({ size: BigInt(entryCount) * 2n ** 29n, l1_size: entryCount })],
    [0x30000, l1],
  ])
}

/** Compressed clusters that each have bytes of their own, as few as can be. */
async function zstdBomb(folder: string): Promise<string> {
  const clusterSize = 2 * MIB
  const count = clusterSize / 8
  const frame = (await zstd()).compress(new Uint8Array(clusterSize))
  if (frame === undefined) throw new Error('zeroes do not compress')
  const step = frame.length
  const frames = Buffer.alloc(count * step)
  for (let at = 0; at < frames.length; at += step) frames.set(frame, at)
  const start = 5 * clusterSize
  const sectors = (at: number): bigint =>
    BigInt(Math.floor((at + step - 1) / 512) - Math.floor(at / 512))
  const first = header({
    ...{ cluster_bits: 21, size: BigInt(count) * BigInt(clusterSize), header_length: 112 },
    ...{ l1_table_offset: 3 * clusterSize, refcount_table_offset: clusterSize },
    ...{ incompatible_features: 8, compression_type: 1 },
  })
  return writePieces(join(folder, 'zstd.qcow2'), start + Math.ceil(frames.length / 512) * 512, [
    [0, first],
    [3 * clusterSize, table(1, () => COPIED | BigInt(4 * clusterSize))],
    [
      4 * clusterSize,
      table(count, (index) => {
        const at = start + index * step
        return (1n << 62n) | (sectors(at) << 49n) | BigInt(at)
      }),
    ],
    [start, frames],
  ])
}

function deflated(size: number): Buffer {
  return deflateRawSync(Buffer.alloc(size), { windowBits: 12, level: 9 })
}

function snapshotTable(count: number, l1Offset: number, l1Size: number): Buffer {
  const entry = 64
  const bytes = Buffer.alloc(count * entry)
  for (let at = 0; at < bytes.length; at += entry) {
    bytes.writeBigUInt64BE(BigInt(l1Offset), at)
    bytes.writeUInt32BE(l1Size, at + 8)
    bytes.writeUInt16BE(6, at + 12)
    bytes.writeUInt32BE(16, at + 36)
    bytes.write(String(at / entry).padStart(6, '0'), at + 56, 'latin1')
  }
  return bytes
}

/** A chain of `count` overlays, each on the next; the path of the uppermost. */
function deepChain(folder: string, count: number): string {
  const nameOf = (index: number): string => String(index).padStart(6, '0')
  const backing = { name: nameOf(0), format: 'qcow2' }
  const bytes = Buffer.from(buildImage({ size: 65_536, clusterBits: 9, backing }).bytes)
  const nameAt = bytes.indexOf(nameOf(0))
  for (let index = 0; index < count; index++) {
    bytes.write(nameOf(index + 1), nameAt, 'latin1')
    writeFileSync(join(folder, nameOf(index)), bytes)
  }
  writeFileSync(join(folder, nameOf(count)), buildImage({ size: 65_536, clusterBits: 9 }).bytes)
  return join(folder, nameOf(0))
}

function named(folder: string, name: string): string {
  const { bytes } = buildImage({ size: 65_536, backing: { name, format: 'raw' } })
  const path = join(folder, 'named.qcow2')
  writeFileSync(path, bytes)
  return path
}

function dataFile(folder: string, name: string): string {
  const { bytes } = buildImage({
    size: 65_536,
    incompatible: 4,
    extensions: [{ type: 'data_file', data: Buffer.from(name) }],
  })
  const path = join(folder, 'data-file.qcow2')
  writeFileSync(path, bytes)
  return path
}

const NESTED_JSON = `json:${'{"driver":"qcow2","file":'.repeat(36)}${'}'.repeat(36)}`

/** All of them. */
export const AMPLIFIERS: readonly Amplifier[] = [
  amplifier('one L2 table named by four million L1 entries', 'TABLE_SHARED', (folder) =>
    sharedL2(folder, WIDEST_L1),
  ),
  amplifier('an L1 table of 32 MiB that is a hole', 'TABLE_CLAIM', (folder) =>
    writePieces(join(folder, 'sparse.qcow2'), 34 * MIB, [
      [0, header({ size: 2n * PIB, l1_size: WIDEST_L1 })],
    ]),
  ),
  amplifier('a refcount table of 8 MiB that is a hole', 'TABLE_CLAIM', (folder) =>
    writePieces(join(folder, 'sparse.qcow2'), 34 * MIB, [
      [0, header({ refcount_table_offset: MIB, refcount_table_clusters: 128 })],
    ]),
  ),
  amplifier('65,536 snapshots', 'SNAPSHOT_COUNT', (folder) =>
    writePieces(join(folder, 'snapshots.qcow2'), 8 * MIB, [
      [0, header({ nb_snapshots: 65_536, snapshots_offset: MIB })],
      [MIB, snapshotTable(65_536, 0x30000, 1)],
    ]),
  ),
  amplifier('4096 snapshots with one L1 table', 'TABLES_OVERLAP', (folder) =>
    writePieces(join(folder, 'snapshots.qcow2'), 34 * MIB, [
      [0, header({ nb_snapshots: 4096, snapshots_offset: MIB })],
      [MIB, snapshotTable(4096, 2 * MIB, 65_536)],
      [2 * MIB, table(65_536, () => 0n)],
    ]),
  ),
  amplifier('4000 L2 tables that are holes', 'TABLE_CLAIM', (folder) =>
    writePieces(join(folder, 'holes.qcow2'), 2 ** 40, [
      [0, header({ size: 4000n * 2n ** 29n, l1_size: 4000 })],
      [0x30000, table(4000, (index) => COPIED | BigInt((index + 1) * 128 * MIB))],
    ]),
  ),
  amplifier('262,144 data clusters that are one', 'CLUSTER_SHARED', (folder) =>
    sharedClusters(folder, COPIED | BigInt(10 * MIB), new Uint8Array(0)),
  ),
  amplifier('262,144 compressed clusters that are one', 'OUTPUT_LIMIT', (folder) => {
    const packed = deflated(2 * MIB)
    const sectors = BigInt(Math.ceil(packed.length / 512) - 1)
    return sharedClusters(folder, (1n << 62n) | (sectors << 49n) | BigInt(10 * MIB), packed)
  }),
  amplifier('512 GiB of zeroes by zstd', 'OUTPUT_LIMIT', zstdBomb),
  amplifier('260,000 header extensions', 'HEADER_EXTENSION', (folder) =>
    writePieces(join(folder, 'extensions.qcow2'), 16 * MIB, [
      [0, header({ cluster_bits: 21, l1_table_offset: 6 * MIB, refcount_table_offset: 2 * MIB })],
      [104, table(260_000, () => 1n << 32n)],
    ]),
  ),
  amplifier('65,535 bitmaps in a directory that is a hole', 'BITMAP_DIRECTORY', (folder) => {
    const extension = Buffer.alloc(32)
    extension.writeUInt32BE(EXTENSIONS.bitmaps, 0)
    extension.writeUInt32BE(24, 4)
    extension.writeUInt32BE(65_535, 8)
    extension.writeBigUInt64BE(64n * 2n ** 20n, 16)
    extension.writeBigUInt64BE(2n * 2n ** 20n, 24)
    return writePieces(join(folder, 'bitmaps.qcow2'), 70 * MIB, [
      [0, header({ autoclear_features: 1 })],
      [104, extension],
    ])
  }),
  amplifier('a chain of 10,000 files', 'BACKING_REFERENCE', (folder) => deepChain(folder, 10_000)),
  amplifier('an image that stands on itself', 'BACKING_REFERENCE', (folder) =>
    named(folder, 'named.qcow2'),
  ),
  amplifier('a backing name of nested options', 'BACKING_REFERENCE', (folder) =>
    named(folder, NESTED_JSON),
  ),
  ...['json:{"driver":"raw"}', 'nbd://host/x', '/etc/passwd\0x', 'a\nb', '/dev/stdin', 'fd:3'].map(
    (name) =>
      amplifier(`the backing name ${JSON.stringify(name)}`, 'BACKING_REFERENCE', (folder) =>
        named(folder, name),
      ),
  ),
  ...['/etc/passwd', 'json:{"driver":"file","filename":"/etc/passwd"}'].map((name) =>
    amplifier(`the data file ${JSON.stringify(name)}`, 'DATA_FILE_REFERENCE', (folder) =>
      dataFile(folder, name),
    ),
  ),
]
