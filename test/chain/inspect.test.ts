import { closeSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type InspectOptions, inspect, openChain } from '../../src/chain/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { recordingFiles } from '../hostile/recording-files.ts'
import { buildImage, filled, type ImageSpec } from '../support/image-builder.ts'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { type Patch, patched } from '../support/poke.ts'
import { suiteFolder, tempFolder } from '../support/temp.ts'

const PLAIN: ImageSpec = {
  size: 64 * 4096,
  clusterBits: 12,
  content: {
    0: { kind: 'data', bytes: filled(1, 4096) },
    1: { kind: 'zero' },
    3: { kind: 'data', bytes: filled(3, 4096) },
  },
}
const VIEWS: ImageSpec = {
  ...PLAIN,
  snapshots: [{ id: '1', name: 'one', content: { 0: { kind: 'shared' } } }],
}

/** The codes found in an image with severity. */
async function found(bytes: Uint8Array, options: InspectOptions = {}): Promise<string[]> {
  const { findings } = await inspect(MemoryDevice.from(bytes), options)
  return [...new Set(findings.map(({ severity, code }) => `${severity} ${code}`))]
}

function damaged(patches: readonly Patch[], spec: ImageSpec = PLAIN): Uint8Array {
  return patched(buildImage(spec).bytes, patches)
}

/** What other software made and we refuse nevertheless, since a reader would have to trust it. */
const REFUSED = [
  ...['size-not-sectors', 'corrupt-bit', 'luks', 'aes', 'data-file', 'data-file-raw'],
  ...['extended-l2-16k', 'extended-l2-64k', 'extended-l2-2m', 'unknown-extension'],
  ...['chain-clusters', 'chain-raw-base', 'chain-raw-odd', 'chain-short-base', 'chain-long-base'],
  ...['chain-grown', 'chain-v2-top', 'chain-no-format', 'chain-json', 'chain-json-qcow2'],
  ...['chain-deep', 'chain-snapshots', 'chain-compressed-base', 'chain-missing', 'chain-loop'],
]

describe('the images of the collection', () => {
  const folder = suiteFolder()
  const unpacked = (name: string): string => {
    const own = join(folder, name)
    mkdirSync(own)
    return own
  }

  test('that QEMU made are accepted, unless they name other files, are encrypted, odd or corrupt', async () => {
    const refused: string[] = []
    for (const image of imageManifest().whole) {
      const { verdict } = await inspect(unpackImage(image, unpacked(image.name)))
      if (verdict === 'refuse') refused.push(image.name)
    }
    expect(refused.sort()).toEqual(REFUSED.sort())
  })

  test('that are broken are refused, or read as far as QEMU reads them', async () => {
    for (const image of imageManifest().broken) {
      const path = unpackImage(image, unpacked(`broken-${image.name}`))
      const { verdict, format, findings } = await inspect(path)
      if (verdict === 'refuse') continue
      const codes = findings.map(({ code }) => code)
      expect([image.name, codes.filter((code) => code === 'BUDGET_EXCEEDED')]).toEqual([
        image.name,
        [],
      ])
      if (format === 'qcow2') {
        await using chain = await openChain(path, { untrusted: true })
        expect([image.name, chain.layers.length]).toEqual([image.name, 1])
      }
    }
  }, 60_000)
})

describe('what is refused', () => {
  const AT_END = '0x10000000'
  const cases: Readonly<Record<string, readonly [string, Uint8Array]>> = {
    'version 1': ['VERSION', damaged([{ header: 'version', value: 4 }])],
    'an unknown feature': [
      'UNKNOWN_FEATURE',
      damaged([{ header: 'incompatible_features', value: 32 }]),
    ],
    'a corrupt image': ['IMAGE_CORRUPT', damaged([{ header: 'incompatible_features', value: 2 }])],
    'a backing name': [
      'BACKING_REFERENCE',
      buildImage({ ...PLAIN, backing: { name: 'base.raw', format: 'raw' } }).bytes,
    ],
    'a length of a backing name that is not there': [
      'BACKING_REFERENCE',
      damaged([{ header: 'backing_file_size', value: 8 }]),
    ],
    'a backing name in the header': [
      'BACKING_NAME',
      damaged([
        { header: 'backing_file_offset', value: 80 },
        { header: 'backing_file_size', value: 8 },
      ]),
    ],
    'a data file by its bit': [
      'DATA_FILE_REFERENCE',
      damaged([{ header: 'incompatible_features', value: 4 }]),
    ],
    'a data file by its name alone': [
      'DATA_FILE_REFERENCE',
      buildImage({
        ...PLAIN,
        extensions: [{ type: 'data_file', data: Buffer.from('/etc/passwd') }],
      }).bytes,
    ],
    encryption: ['ENCRYPTED', damaged([{ header: 'crypt_method', value: 1 }])],
    'an L1 table past the end': [
      'OUTSIDE_FILE',
      damaged([{ header: 'l1_table_offset', value: AT_END }]),
    ],
    'an L1 table on the header': [
      'TABLES_OVERLAP',
      damaged([{ header: 'l1_table_offset', value: 0 }]),
    ],
    'an unaligned refcount table': [
      'TABLE_UNALIGNED',
      damaged([{ header: 'refcount_table_offset', value: 4104 }]),
    ],
    'no refcount table': [
      'REFCOUNT_TABLE',
      damaged([{ header: 'refcount_table_clusters', value: 0 }]),
    ],
    'two refcount blocks that are one': [
      'TABLES_OVERLAP',
      damaged([{ refcountTable: 1, value: 2 * 4096 }]),
    ],
    'a cluster past the end': ['OUTSIDE_FILE', damaged([{ l2: 5, value: AT_END }])],
    'a cluster on a table': ['CLUSTER_SHARED', damaged([{ l2: 5, value: 4096 }])],
    'one cluster in two places': [
      'CLUSTER_SHARED',
      damaged([{ l2: 5, value: buildImage(PLAIN).data.get(3)! }]),
    ],
    'an unaligned cluster': [
      'CLUSTER_UNALIGNED',
      damaged([{ l2: 5, value: buildImage(PLAIN).data.get(3)! + 512 }]),
    ],
    'reserved bits': ['RESERVED_BITS', damaged([{ l2: 5, value: '0x0100000000000000' }])],
    'a zero cluster of version 2': ['ZERO_CLUSTER', damaged([{ header: 'version', value: 2 }])],
    'an odd size': ['VIRTUAL_SIZE', damaged([{ header: 'size', value: 4095 }])],
    'an extension past its area': [
      'HEADER_EXTENSION',
      buildImage({
        ...PLAIN,
        extensions: [{ type: 0x12345678, data: new Uint8Array(8) }],
      }).bytes.map((byte, at) => (at === 112 + 6 ? 0xff : byte)),
    ],
    'an extension that is there twice': [
      'HEADER_EXTENSION',
      buildImage({
        ...PLAIN,
        extensions: [
          { type: 'feature_names', data: new Uint8Array(48) },
          { type: 'feature_names', data: new Uint8Array(48) },
        ],
      }).bytes,
    ],
    'a compression type that was not announced': [
      'COMPRESSION_TYPE',
      damaged([{ header: 'compression_type', value: 1 }]),
    ],
    'a snapshot whose L1 table is the active one': [
      'TABLES_OVERLAP',
      damaged([{ snapshot: 0, field: 'l1_table_offset', value: buildImage(VIEWS).l1 }], VIEWS),
    ],
    'a snapshot table past the end': [
      'SNAPSHOT_TABLE',
      damaged([{ header: 'snapshots_offset', value: AT_END }], VIEWS),
    ],
    'a snapshot of a larger disk than its table has': [
      'SNAPSHOT_TABLE',
      damaged([{ snapshot: 0, field: 'extra_disk_size', value: 2 ** 40 }], VIEWS),
    ],
  }

  test.each(Object.keys(cases))('%s', async (name) => {
    const [code, bytes] = cases[name]!
    expect(await found(bytes)).toContain(`refuse ${code}`)
    await expect(inspect(MemoryDevice.from(bytes))).resolves.toMatchObject({ verdict: 'refuse' })
  })

  test.each([
    ['vmdk', 'KDMV'],
    ['vdi', `${'\0'.repeat(64)}\x7f\x10\xda\xbe`],
    ['vhdx', 'vhdxfile'],
    ['vpc', 'conectix'],
    ['luks', 'LUKS\xba\xbe\0\x01'],
    ['qcow', 'QFI\xfb\0\0\0\x01'],
  ])('the format %s, by its name', async (format, text) => {
    const bytes = Buffer.concat([Buffer.from(text, 'latin1'), Buffer.alloc(1024)])
    const inspection = await inspect(MemoryDevice.from(bytes))
    expect(inspection).toMatchObject({ verdict: 'refuse', format })
    expect(inspection.findings[0]).toMatchObject({ code: 'FORMAT_NOT_SUPPORTED' })
  })

  test('what is no file: it is not even opened', async () => {
    const { files, opened } = recordingFiles()
    expect(await inspect('/dev/zero', { files })).toMatchObject({
      verdict: 'refuse',
      findings: [{ code: 'NOT_A_FILE' }],
    })
    expect(opened).toEqual([])
    await expect(openChain('/dev/zero', { files, untrusted: true, format: 'raw' })).rejects.toThrow(
      'image is a character device, not a file',
    )
    expect(opened).toEqual([])
  })
})

describe('limits', () => {
  test('are of reads, of the virtual size and of snapshots', async () => {
    const bytes = buildImage(VIEWS).bytes
    expect(await found(bytes, { readSize: 8192 })).toEqual(['refuse BUDGET_EXCEEDED'])
    expect(await found(bytes, { timeMs: 0 })).toEqual(['refuse BUDGET_EXCEEDED'])
    expect(await found(bytes, { memorySize: 100 })).toEqual(['refuse BUDGET_EXCEEDED'])
    expect(await found(bytes, { virtualSize: 4096 })).toEqual(['refuse VIRTUAL_SIZE'])
    expect(await found(bytes, { snapshotCount: 0 })).toEqual(['refuse SNAPSHOT_COUNT'])
    expect(await found(bytes, { outputSize: 4096 })).toEqual(['refuse OUTPUT_LIMIT'])
    expect(await found(bytes)).toEqual([])
  })

  test('end an inspection after a thousand findings', async () => {
    const size = 4096 * 4096
    const content = Object.fromEntries(
      Array.from({ length: 2048 }, (_, index) => [
        index,
        { kind: 'raw' as const, entry: 3n << 55n },
      ]),
    )
    const { findingCount, findings } = await inspect(
      MemoryDevice.from(buildImage({ size, clusterBits: 12, content }).bytes),
    )
    expect(findingCount).toBe(1001)
    expect(findings.map(({ code }) => code)).toEqual([
      ...Array.from({ length: 8 }, () => 'RESERVED_BITS'),
      'TOO_MANY_FINDINGS',
    ])
  })

  test('an abort ends it with its reason', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    const device = MemoryDevice.from(buildImage(PLAIN).bytes)
    await expect(inspect(device, { signal })).rejects.toThrow('enough')
  })
})

describe('a second format', () => {
  const footer = Buffer.concat([Buffer.from('conectix'), Buffer.alloc(504)])

  test('is warned of, and refused when strict', async () => {
    const bytes = Buffer.concat([buildImage(PLAIN).bytes, footer])
    expect(await found(bytes)).toEqual(['warn SECOND_FORMAT'])
    await expect(inspect(MemoryDevice.from(bytes))).resolves.toMatchObject({ verdict: 'accept' })
    const strict = await inspect(MemoryDevice.from(bytes), { strict: true })
    expect(strict.verdict).toBe('refuse')
  })

  test('of a disk that is said to be raw is its first bytes: the guest wrote them', async () => {
    const bytes = buildImage({ ...PLAIN, backing: { name: '/etc/passwd', format: 'raw' } }).bytes
    const inspection = await inspect(MemoryDevice.from(bytes), { format: 'raw' })
    expect(inspection).toMatchObject({ verdict: 'accept', format: 'raw', references: [] })
    expect(inspection.findings).toMatchObject([{ severity: 'warn', code: 'SECOND_FORMAT' }])
  })
})

describe('names', () => {
  test('are shown, and nothing is looked up', async () => {
    const folder = tempFolder()
    const path = join(folder, 'a.qcow2')
    const name = 'json:{"driver":"raw","file.filename":"/etc/passwd"}'
    writeFileSync(path, buildImage({ ...PLAIN, backing: { name, format: 'raw' } }).bytes)
    const { files, opened, asked } = recordingFiles()
    const { references, findings } = await inspect(path, { files })
    expect(references).toEqual([{ kind: 'backing', name, format: 'raw' }])
    expect(findings[0]?.message).toContain('(holds options)')
    expect(opened).toEqual([`read ${path}`])
    expect(asked).toEqual([`stat ${path}`])
  })

  test('that lead to more than a file are not taken', async () => {
    const path = join(tempFolder(), 'a.raw')
    writeFileSync(path, 'x')
    await expect(
      inspect(`json:{"driver":"raw","offset":0,"file":{"driver":"file","filename":"${path}"}}`),
    ).rejects.toMatchObject({ name: 'UsageError', code: 'INVALID_LOCATION' })
    await expect(inspect(join(tempFolder(), 'nowhere'))).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
    })
  })

  test('of a link leads to its file', async () => {
    const folder = tempFolder()
    writeFileSync(join(folder, 'a'), buildImage(PLAIN).bytes)
    symlinkSync(join(folder, 'a'), join(folder, 'b'))
    expect((await inspect(join(folder, 'b'))).verdict).toBe('accept')
  })
})

test('an image is left as it is', async () => {
  const path = join(tempFolder(), 'a.qcow2')
  const { bytes } = buildImage(VIEWS)
  writeFileSync(path, bytes, { mode: 0o444 })
  closeSync(openSync(path, 'r'))
  const inspection = await inspect(path)
  expect(inspection).toMatchObject({
    verdict: 'accept',
    image: { version: 3, virtualSize: 64 * 4096, clusterSize: 4096, snapshotCount: 1, l2Tables: 2 },
  })
  expect(inspection.image).toMatchObject({ dataClusters: 2, zeroClusters: 1, bitmapCount: 0 })
  expect(readFileSync(path).equals(bytes)).toBe(true)
})
