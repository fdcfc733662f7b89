/** The header: byte for byte what qemu-img writes, and refused where QEMU refuses it, with the field named. */

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { ImageError } from '../../../src/base/errors.ts'
import { EXTENSION } from '../../../src/qcow2/layout/constants.ts'
import { extensionText, textExtension } from '../../../src/qcow2/layout/extensions.ts'
import {
  encodeHeader,
  findExtension,
  type Header,
  headerClusterSize,
  headerGeometry,
  looksLikeQcow2,
  parseHeader,
} from '../../../src/qcow2/layout/header.ts'
import { buildImage, type ImageSpec } from '../../support/image-builder.ts'
import { imageManifest, unpackImage } from '../../support/image-matrix.ts'
import { type Patch, patched } from '../../support/poke.ts'
import { tempFolder } from '../../support/temp.ts'

/** The first cluster, with zeroes where the file is shorter. */
function headerCluster(bytes: Uint8Array, clusterSize = headerClusterSize(bytes)): Uint8Array {
  const cluster = new Uint8Array(clusterSize)
  cluster.set(bytes.subarray(0, cluster.length))
  return cluster
}

function built(spec: Partial<ImageSpec> = {}, ...patches: Patch[]): Uint8Array {
  const { bytes, clusterSize } = buildImage({ size: 1024 * 1024, ...spec })
  return headerCluster(patched(bytes, patches), clusterSize)
}

function codeOf(bytes: Uint8Array): string {
  try {
    parseHeader(bytes)
  } catch (error) {
    if (error instanceof ImageError) return error.code
    throw error
  }
  return 'accepted'
}

describe('a header that qemu-img wrote', () => {
  it.each(imageManifest().whole)('comes back byte for byte: $name', (image) => {
    const cluster = headerCluster(readFileSync(unpackImage(image, tempFolder())))
    const header = parseHeader(cluster)
    // QEMU shows whole sectors of a size that is none.
    expect(header.size - (header.size % 512)).toBe(image.virtualSize)
    expect(Buffer.compare(encodeHeader(header), cluster)).toBe(0)
  })
})

describe('a header', () => {
  it('keeps fields and extensions that we do not know', () => {
    const base = parseHeader(built({ extensions: [STRANGE], headerLength: 120 }))
    const tail = Uint8Array.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    const again = parseHeader(encodeHeader({ ...base, tail, autoclearFeatures: 1n << 63n }))
    expect(again.tail).toEqual(tail)
    expect(again.autoclearFeatures).toBe(1n << 63n)
    expect(Buffer.from(findExtension(again, STRANGE.type)!.data)).toEqual(STRANGE.data)
  })

  it('is a copy of the bytes it was read from', () => {
    const bytes = Buffer.from(built({ extensions: [STRANGE], headerLength: 120 }))
    const header = parseHeader(bytes)
    bytes.fill(0xff)
    expect(Buffer.from(findExtension(header, STRANGE.type)!.data)).toEqual(STRANGE.data)
    expect(header.tail).toEqual(new Uint8Array(16))
  })

  it('of version 2 has no version 3 fields', () => {
    const header = parseHeader(built({ version: 2 }))
    expect(header).toMatchObject({ version: 2, refcountOrder: 4, headerLength: 72 })
    expect([header.incompatibleFeatures, header.autoclearFeatures]).toEqual([0n, 0n])
    expect(header.tail).toHaveLength(0)
  })

  it('holds a backing name with its format, and a name that is no UTF-8', () => {
    const header = parseHeader(built({ backing: { name: 'base.raw', format: 'raw' } }))
    expect(header.backingName).toBe('base.raw')
    expect(extensionText(header.extensions, EXTENSION.backingFormat)).toBe('raw')
    const strange = { ...header, backingName: 'caf\udce9' }
    const bytes = encodeHeader(strange)
    expect(Buffer.from(bytes).includes(Buffer.from('caf\u00e9', 'latin1'))).toBe(true)
    expect(parseHeader(bytes).backingName).toBe('caf\udce9')
  })

  it('without a backing name has no room for one', () => {
    const header = parseHeader(built({ backing: { name: 'base.raw', format: 'raw' } }))
    const bytes = encodeHeader({ ...header, backingName: undefined })
    expect(parseHeader(bytes)).toMatchObject({ backingName: undefined, backingNameOffset: 0 })
  })

  it('that does not fit its cluster is the fault of the caller', () => {
    const header = parseHeader(built({ clusterBits: 9 }))
    const long = { ...header, backingName: 'x'.repeat(400) }
    expect(() => encodeHeader(long)).toThrow(expect.objectContaining({ code: 'HEADER_FULL' }))
    const extensions = [textExtension(EXTENSION.dataFile, 'y'.repeat(400))]
    expect(() => encodeHeader({ ...header, extensions })).toThrow(/does not fit/)
    for (let length = 0; length < 400; length++) {
      const backingName = 'z'.repeat(length)
      let bytes: Uint8Array
      try {
        bytes = encodeHeader({ ...header, backingName })
      } catch {
        expect(length).toBeGreaterThan(200)
        return
      }
      expect(parseHeader(bytes).backingName ?? '').toBe(backingName)
    }
    throw new Error('the cluster never filled up')
  })

  it('tells its geometry', () => {
    const header = parseHeader(built({ clusterBits: 14, refcountOrder: 3, extendedL2: true }))
    expect(headerGeometry(header)).toMatchObject({ l2Entries: 1024, refcountBits: 8 })
  })

  it('is recognised by its first bytes', () => {
    expect(looksLikeQcow2(built().subarray(0, 8))).toBe(true)
    expect(looksLikeQcow2(built().subarray(0, 7))).toBe(false)
    expect(looksLikeQcow2(Buffer.from('not an image'))).toBe(false)
  })
})

const STRANGE = { type: 0x12345678, data: Buffer.from('anything at all') }

/** What is refused, and with which code. */
const REFUSED: [code: string, patch: Patch, spec?: Partial<ImageSpec>][] = [
  ['NOT_QCOW2', { header: 'magic', value: 0x514649fc }],
  ['VERSION', { header: 'version', value: 1 }],
  ['VERSION', { header: 'version', value: 4 }],
  ['CLUSTER_SIZE', { header: 'cluster_bits', value: 8 }],
  ['CLUSTER_SIZE', { header: 'cluster_bits', value: 22 }],
  ['HEADER_LENGTH', { header: 'header_length', value: 103 }],
  ['HEADER_LENGTH', { header: 'header_length', value: 65537 }],
  ['HEADER_EXTENSION', { header: 'header_length', value: 108 }, { extensions: [STRANGE] }],
  ['REFCOUNT_WIDTH', { header: 'refcount_order', value: 7 }],
  ['REFCOUNT_TABLE', { header: 'refcount_table_clusters', value: 129 }],
  ['TABLE_UNALIGNED', { header: 'refcount_table_offset', value: 65536 + 512 }],
  ['TABLE_UNALIGNED', { header: 'l1_table_offset', value: 512 }],
  ['L1_TABLE', { header: 'l1_size', value: 0 }],
  ['L1_TABLE', { header: 'l1_size', value: 4 * 1024 * 1024 + 1 }],
  ['SNAPSHOT_TABLE', { header: 'nb_snapshots', value: 65537 }],
  ['UNKNOWN_FEATURE', { header: 'incompatible_features', value: 32 }],
  ['EXTENDED_L2', { header: 'incompatible_features', value: 16 }, { clusterBits: 13 }],
  ['COMPRESSION_TYPE', { header: 'compression_type', value: 1 }],
  ['COMPRESSION_TYPE', { header: 'compression_type', value: 2 }],
  ['COMPRESSION_TYPE', { header: 'incompatible_features', value: 8 }],
  ['DATA_FILE', { header: 'autoclear_features', value: 2 }],
  ['ENCRYPTION_METHOD', { header: 'crypt_method', value: 3 }],
  ['BACKING_NAME', { header: 'backing_file_offset', value: 65537 }],
  ['HEADER_FIELD', { header: 'l1_table_offset', value: '0xffffffffffff0000' }],
  ['HEADER_FIELD', { header: 'size', value: '0x8000000000000000' }],
  ['VIRTUAL_SIZE', { header: 'size', value: 2 ** 52 }],
]

describe('a header is refused', () => {
  it.each(REFUSED)('with code %s for %j', (code, patch, spec) => {
    expect(codeOf(built(spec, patch))).toBe(code)
  })

  it('by the name that the image has for an unknown feature', () => {
    const row = Buffer.alloc(48)
    row.set([0, 40])
    row.write('time travel', 2)
    const bytes = built(
      { extensions: [{ type: 'feature_names', data: row }] },
      { header: 'incompatible_features', value: '0x0000030000000000' },
    )
    const text = 'unsupported qcow2 feature(s): time travel, unknown incompatible feature: 41'
    expect(() => parseHeader(bytes)).toThrow(text)
  })

  it('for an unknown feature even where its extensions are broken', () => {
    const broken: Patch = { offset: 112, bytes: '00000001ffffffff' }
    expect(codeOf(built({}, broken, { header: 'incompatible_features', value: 64 }))).toBe(
      'UNKNOWN_FEATURE',
    )
    expect(codeOf(built({}, broken))).toBe('HEADER_EXTENSION')
  })

  it('for an encryption header without LUKS, or off a cluster', () => {
    const data = Buffer.alloc(16)
    data.writeBigUInt64BE(4096n, 0)
    data.writeBigUInt64BE(8192n, 8)
    const spec = { extensions: [{ type: 'encryption' as const, data }] }
    expect(codeOf(built(spec))).toBe('ENCRYPTION_HEADER')
    const luks: Patch = { header: 'crypt_method', value: 2 }
    expect(codeOf(built(spec, luks))).toBe('ENCRYPTION_HEADER')
    expect(codeOf(built({ ...spec, clusterBits: 12 }, luks))).toBe('accepted')
  })

  it('wherever it is cut off, and never with anything but an ImageError', () => {
    const whole = built({ clusterBits: 9, backing: { name: 'base.raw', format: 'raw' } })
    for (let length = 0; length < whole.length; length++) codeOf(whole.subarray(0, length))
    expect(codeOf(whole.subarray(0, 71))).toBe('HEADER_TRUNCATED')
    expect(codeOf(whole.subarray(0, 103))).toBe('HEADER_TRUNCATED')
    expect(codeOf(whole)).toBe('accepted')
  })

  it('or read, but nothing else, whatever byte of it is changed', () => {
    const whole = built({ clusterBits: 9, backing: { name: 'base.raw', format: 'raw' } })
    for (let at = 0; at < 200; at++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
        const bytes = whole.slice()
        bytes[at] = value
        const header = parsed(bytes)
        if (header !== undefined && at < 104) expect(parsed(encodeHeader(header))).toBeDefined()
      }
    }
  })
})

function parsed(bytes: Uint8Array): Header | undefined {
  return codeOf(bytes) === 'accepted' ? parseHeader(bytes) : undefined
}

describe('a header is taken', () => {
  it('with a backing name that begins within it, as QEMU does', () => {
    const header = parseHeader(
      built(
        {},
        { header: 'backing_file_offset', value: 16 },
        { header: 'backing_file_size', value: 4 },
      ),
    )
    expect(header.extensions).toEqual([])
    expect(header.backingName).toHaveLength(4)
  })

  it('with every limit reached', () => {
    const bytes = built(
      { clusterBits: 21 },
      { header: 'l1_size', value: 4 * 1024 * 1024 },
      { header: 'refcount_table_clusters', value: 4 },
      { header: 'nb_snapshots', value: 65536 },
      { header: 'refcount_order', value: 6 },
    )
    expect(codeOf(bytes)).toBe('accepted')
  })
})
