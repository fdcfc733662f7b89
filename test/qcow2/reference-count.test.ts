/** References counted from the tables: they are what the refcounts of a whole image say, and what those of a dirty one should. */

import { describe, expect, it } from 'vitest'
import { parseHeader } from '../../src/qcow2/layout/header.ts'
import { countReferences } from '../../src/qcow2/reference-count.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { buildImage, type ImageSpec } from '../support/image-builder.ts'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { ImageBytes, type Patch, patched } from '../support/poke.ts'
import { tempFolder } from '../support/temp.ts'

const CLUSTER = 4096
const bytes = Buffer.from('content')
const SPEC: ImageSpec = {
  size: 4096 * CLUSTER,
  clusterBits: 12,
  content: { 0: { kind: 'data', bytes }, 1: { kind: 'zero-allocated' }, 600: { kind: 'zero' } },
  snapshots: [{ id: '1', name: 'one', content: { 0: { kind: 'shared' } } }],
}
const BUILT = buildImage(SPEC)

function count(patches: readonly Patch[] = [], options = {}) {
  const image = patched(BUILT.bytes, patches)
  return countReferences(MemoryDevice.from(image), parseHeader(image.subarray(0, CLUSTER)), options)
}

/** Images of which qemu-img found every refcount right, in clusters small enough to look at each. */
const SOUND = imageManifest().whole.filter(
  ({ check, file }) => check?.status === 0 && file === 'disk.qcow2',
)

describe('the references of a whole image', () => {
  it.each(SOUND)('are its refcounts: $name', async (image) => {
    const path = unpackImage(image, tempFolder())
    const file = await FileDevice.open(nodeFiles, path)
    try {
      const stored = ImageBytes.load(path)
      const header = parseHeader(stored.bytes.subarray(0, stored.clusterSize))
      const { counts, endOffset, corruptions } = await countReferences(file, header)
      expect(corruptions).toBe(0)
      expect(endOffset).toBe(image.check?.imageEndOffset)
      const wrong: number[] = []
      for (let cluster = 0; cluster < endOffset / stored.clusterSize; cluster++) {
        if (counts.get(cluster) !== refcountOf(stored, cluster)) wrong.push(cluster)
      }
      expect(wrong).toEqual([])
    } finally {
      await file.close()
    }
  })
})

/** The stored refcount; 0 where there is no block for it. */
function refcountOf(image: ImageBytes, cluster: number): number {
  try {
    return Number(image.refcount(cluster))
  } catch {
    return 0
  }
}

describe('references', () => {
  it('are counted whatever the refcounts say', async () => {
    const { counts, endOffset } = await count(
      BUILT.counts.map((_, cluster) => ({ refcount: cluster, value: 0 })),
    )
    expect(BUILT.counts.map((_, cluster) => counts.get(cluster))).toEqual(BUILT.counts)
    expect(endOffset).toBe(BUILT.counts.length * CLUSTER)
  })

  it('of the old refcount structures can be left out', async () => {
    const { counts, metadata } = await count([], { refcounts: false })
    for (const offset of [BUILT.refcountTable, ...BUILT.refcountBlocks]) {
      expect(counts.get(offset / CLUSTER)).toBe(0)
    }
    expect(metadata.filter((range) => range.kind.startsWith('refcount'))).toEqual([])
  })

  it('come with the metadata they belong to, each table once', async () => {
    const { metadata } = await count()
    const offsets = (kind: string) =>
      metadata.filter((range) => range.kind === kind).map((range) => range.offset)
    expect(offsets('header')).toEqual([0])
    expect(offsets('l1-table')).toEqual([BUILT.l1, ...BUILT.snapshotL1])
    expect(new Set(offsets('l2-table')).size).toBe(offsets('l2-table').length)
    expect(offsets('l2-table')).toEqual(expect.arrayContaining([...BUILT.l2.values()]))
    expect(offsets('snapshot-table')).toEqual([BUILT.snapshotTable])
    expect(offsets('refcount-table')).toEqual([BUILT.refcountTable])
    expect(offsets('refcount-block')).toEqual(BUILT.refcountBlocks)
  })

  it('past the end of the file are findings', async () => {
    const { findings, corruptions } = await count([{ l2: 0, value: '0x8000000010000000' }])
    expect(corruptions).toBe(1)
    expect(findings[0]?.code).toBe('REFERENCE_PAST_END')
  })

  it('of a snapshot without a disk size are counted like those of any other', async () => {
    const extraData = new Uint8Array(8)
    const poor = buildImage({ ...SPEC, snapshots: [{ ...SPEC.snapshots![0]!, extraData }] })
    const header = parseHeader(poor.bytes.subarray(0, CLUSTER))
    const { corruptions, counts } = await countReferences(MemoryDevice.from(poor.bytes), header)
    expect(corruptions).toBe(0)
    expect(counts.get(poor.snapshotTable / CLUSTER)).toBe(1)
  })

  it('are not given out where a snapshot table hides some', async () => {
    const patches: Patch[] = [{ snapshot: 0, field: 'extra_data_size', value: 4096 }]
    await expect(count(patches)).rejects.toMatchObject({ code: 'REFERENCES_UNKNOWN' })
  })
})
