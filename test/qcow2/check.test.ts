/** The check's own promises: it only reads, opens nothing else, can be stopped, and is bounded by the file, whatever that claims. */

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ImageError } from '../../src/base/errors.ts'
import type { Progress } from '../../src/base/progress.ts'
import { checkImage } from '../../src/qcow2/check.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { buildImage, type ImageSpec } from '../support/image-builder.ts'
import { ImageBytes, type Patch, patched } from '../support/poke.ts'
import { tempFolder } from '../support/temp.ts'

const CLUSTER = 4096
const bytes = Buffer.from('content')

/** Four clusters of data in a small image: host clusters 0 header, 1 table, 2 and 3 blocks, 4 L1, 5 L2, 6 … data. */
const SPEC: ImageSpec = {
  size: 64 * CLUSTER,
  clusterBits: 12,
  content: Object.fromEntries([0, 1, 2, 3].map((index) => [index, { kind: 'data', bytes }])),
}
const BUILT = buildImage(SPEC)

function device(image: Uint8Array = BUILT.bytes): MemoryDevice {
  return MemoryDevice.from(image, { writable: false })
}

function check(...patches: Patch[]) {
  return checkImage(device(patched(BUILT.bytes, patches)))
}

function dataCluster(guest: number): number {
  return BUILT.data.get(guest)! / CLUSTER
}

describe('a report', () => {
  it('of a whole image finds nothing and counts its clusters', async () => {
    expect(await check()).toEqual({
      corruptions: 0,
      leaks: 0,
      checkErrors: 0,
      totalClusters: 64,
      allocatedClusters: 4,
      fragmentedClusters: 0,
      compressedClusters: 0,
      imageEndOffset: BUILT.bytes.length,
      findings: [],
      findingCount: 0,
    })
  })

  it('names a leaked cluster and where it lies', async () => {
    const spare = buildImage({ ...SPEC, spareClusterCount: 1 })
    const cluster = spare.bytes.length / CLUSTER - 1
    const image = patched(spare.bytes, [{ refcount: cluster, value: 1 }])
    expect(await checkImage(device(image))).toMatchObject({
      leaks: 1,
      corruptions: 0,
      imageEndOffset: image.length,
      findings: [
        {
          kind: 'leak',
          code: 'CLUSTER_LEAKED',
          message: `Leaked cluster ${cluster} refcount=1 reference=0`,
          cluster,
          offset: cluster * CLUSTER,
        },
      ],
    })
  })

  it('tells a refcount that is too low from a flag that is wrong', async () => {
    const cluster = dataCluster(2)
    const { findings, corruptions } = await check({ refcount: cluster, value: 0 })
    const entry = (0x8000000000000000n | BigInt(cluster * CLUSTER)).toString(16)
    expect(corruptions).toBe(2)
    expect(findings.map(({ code, message }) => [code, message])).toEqual([
      ['REFCOUNT_TOO_LOW', `ERROR cluster ${cluster} refcount=0 reference=1`],
      ['COPIED_FLAG_DATA', `ERROR OFLAG_COPIED data cluster: l2_entry=${entry} refcount=0`],
    ])
  })

  it('keeps as many findings as asked for and counts the rest', async () => {
    const image = patched(
      BUILT.bytes,
      [0, 1, 2, 3].map((guest) => ({ refcount: dataCluster(guest), value: 7 })),
    )
    const report = await checkImage(device(image), { findingLimit: 3 })
    expect(report.findings).toHaveLength(3)
    expect(report).toMatchObject({ findingCount: 8, leaks: 4, corruptions: 4 })
  })

  it('shows a refcount of 64 bits exactly', async () => {
    const built = buildImage({ ...SPEC, refcountOrder: 6 })
    const cluster = built.data.get(0)! / CLUSTER
    const value = '0xfedcba9876543211'
    const image = patched(built.bytes, [{ refcount: cluster, value }])
    const { findings } = await checkImage(device(image))
    const text = BigInt(value).toString()
    expect(findings[0]?.message).toBe(`Leaked cluster ${cluster} refcount=${text} reference=1`)
    expect(findings[1]?.message).toMatch(new RegExp(`refcount=${text}$`))
  })

  it('says why it ended early when the snapshot table cannot be read', async () => {
    const report = await check(
      { header: 'nb_snapshots', value: 65537 },
      { header: 'snapshots_offset', value: 0 },
    )
    expect(report.failure).toBe('File too large')
    expect(report.findings.map((finding) => finding.message)).toEqual([
      'ERROR snapshot table too large',
      'You can force-remove all 1 overhanging snapshots with qemu-img check -r all',
    ])
  })
})

describe('a check', () => {
  it('needs neither the base nor the data file', async () => {
    const base = buildImage({ ...SPEC, backing: { name: '/nowhere/base.qcow2', format: 'qcow2' } })
    expect(await checkImage(device(base.bytes))).toMatchObject({ corruptions: 0, leaks: 0 })
    const name = Buffer.from('/nowhere/data.raw')
    const data = buildImage({
      size: SPEC.size,
      clusterBits: 12,
      incompatible: 4,
      extensions: [{ type: 'data_file', data: name }],
      content: { 0: { kind: 'raw', entry: 1n << 63n } },
    })
    expect(await checkImage(device(data.bytes))).toMatchObject({
      corruptions: 0,
      allocatedClusters: 1,
    })
  })

  it('refuses what cannot be opened, with the field that is wrong', async () => {
    await expect(check({ header: 'cluster_bits', value: 40 })).rejects.toThrow(/cluster size 2\^40/)
    await expect(check({ header: 'magic', value: 0 })).rejects.toThrow(ImageError)
    await expect(checkImage(device(new Uint8Array(0)))).rejects.toThrow(ImageError)
    await expect(check({ header: 'incompatible_features', value: 4 })).rejects.toMatchObject({
      code: 'DATA_FILE',
    })
  })

  it('ends with the reason of the signal', async () => {
    const reason = new Error('enough')
    const before = checkImage(device(), { signal: AbortSignal.abort(reason) })
    await expect(before).rejects.toBe(reason)
    const controller = new AbortController()
    const onProgress = () => controller.abort(reason)
    const during = checkImage(device(), { signal: controller.signal, onProgress })
    await expect(during).rejects.toBe(reason)
  })

  it('tells how far it is, up to the end', async () => {
    const seen: Progress[] = []
    await checkImage(device(patched(BUILT.bytes, [{ refcount: dataCluster(0), value: 2 }])), {
      onProgress: (progress) => seen.push(progress),
    })
    expect(seen).toEqual([
      { done: 1, total: 2 },
      { done: 2, total: 2 },
    ])
  })
})

describe('an image made to take for ever', () => {
  /** A disk whose L1 table has `count` entries: these, over and over. */
  function withL1(count: number, ...entries: bigint[]): Uint8Array {
    const image = new ImageBytes(BUILT.bytes)
    const table = image.bytes.length
    image.resize(table + Math.ceil((count * 8) / CLUSTER) * CLUSTER)
    image.set(40, 8, table)
    image.set(36, 4, count)
    const pattern = Buffer.alloc(entries.length * 8)
    for (const [index, entry] of entries.entries()) pattern.writeBigUInt64BE(entry, index * 8)
    image.bytes.fill(pattern, table, table + count * 8)
    return image.bytes
  }

  it('by naming one L2 table a million times is judged at once', async () => {
    const l2 = BUILT.l2.get(0)!
    const image = withL1(1_000_000, BigInt(l2) | (1n << 63n))
    const report = await checkImage(device(image))
    // A refcount of 16 bits cannot hold the count: of the table and of each data cluster.
    const overflows = 5 * (1_000_000 - 65535)
    expect(report.corruptions).toBeGreaterThan(overflows)
    expect(report.allocatedClusters).toBe(4_000_000)
    expect(report.findings.length).toBeLessThanOrEqual(10_000)
  })

  it('by broken entries that are named a million times is judged at once', async () => {
    const l2 = BUILT.l2.get(0)!
    const image = new ImageBytes(withL1(1_000_000, BigInt(l2)))
    for (let index = 0; index < CLUSTER / 8; index++) image.set(l2 + index * 8, 8, 0x1ffn)
    const report = await checkImage(device(image.bytes))
    expect(report.corruptions).toBeGreaterThanOrEqual((CLUSTER / 8) * 1_000_000)
  })

  it('by L2 tables that lie over each other is refused', async () => {
    const overlapping = Array.from({ length: 30_000 }, (_, index) => BigInt((1 + index) * 512))
    const image = new ImageBytes(withL1(1_000_000, ...overlapping))
    await expect(checkImage(device(image.bytes))).rejects.toMatchObject({ code: 'TABLES_OVERLAP' })
  })

  it('by snapshots that share one L1 table is refused', async () => {
    const image = new ImageBytes(withL1(4_000_000, 0n))
    const l1 = image.header('l1_table_offset')
    const table = image.bytes.length
    image.resize(table + 65536 * 40)
    image.set(60, 4, 65536)
    image.set(64, 8, table)
    image.set(table, 8, l1)
    image.set(table + 8, 4, 4_000_000)
    image.bytes.fill(image.bytes.subarray(table, table + 40), table, table + 65536 * 40)
    await expect(checkImage(device(image.bytes))).rejects.toMatchObject({ code: 'TABLES_OVERLAP' })
  })

  it('by claims takes no memory for what the file does not hold', async () => {
    const report = await check(
      { header: 'l1_size', value: 4 * 1024 * 1024 },
      { header: 'l1_table_offset', value: 2 ** 50 },
      { header: 'refcount_table_offset', value: 2 ** 50 },
      { header: 'refcount_table_clusters', value: 2048 },
    )
    expect(report).toMatchObject({ corruptions: 3, imageEndOffset: CLUSTER })
  })

  it('by a file of a tebibyte of nothing is judged at once', async () => {
    const path = join(tempFolder(), 'sparse')
    const file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    try {
      await file.write(0, BUILT.bytes)
      await file.resize(2 ** 40)
      expect(await checkImage(file)).toMatchObject({
        corruptions: 0,
        leaks: 0,
        imageEndOffset: BUILT.bytes.length,
      })
      await file.resize(2 ** 31 * CLUSTER)
      expect(await checkImage(file)).toMatchObject({ failure: 'File too large', checkErrors: 1 })
    } finally {
      await file.close()
    }
  })
})
