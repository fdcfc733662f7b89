/** Patches reach what they name: in every refcount width, and as the real check sees it. */

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { buildImage, filled } from './image-builder.ts'
import { brokenImage, imageManifest, unpackImage } from './image-matrix.ts'
import { ImageBytes, patched } from './poke.ts'
import { describeWithQemu, qemuImg } from './qemu.ts'
import { tempFolder } from './temp.ts'

describe('poke', () => {
  it.each([0, 1, 2, 3, 4, 5, 6])('sets one refcount of order %i and leaves the others', (order) => {
    const content = { 0: { kind: 'data', bytes: filled(1, 512) } } as const
    const image = new ImageBytes(
      buildImage({ size: 4096, clusterBits: 9, refcountOrder: order, content }).bytes,
    )
    const all = () => [0, 1, 2, 3, 4, 5].map((cluster) => Number(image.refcount(cluster)))
    expect(all()).toEqual([1, 1, 1, 1, 1, 1])
    image.setRefcount(3, 0)
    expect(all()).toEqual([1, 1, 1, 0, 1, 1])
    image.setRefcount(3, 1)
    expect(all()).toEqual([1, 1, 1, 1, 1, 1])
  })

  it('keeps the bytes it was given', () => {
    const { bytes } = buildImage({ size: 65536 })
    const before = Buffer.from(bytes)
    patched(bytes, [{ header: 'version', value: 9 }, { fileSize: 100 }])
    expect(Buffer.from(bytes).equals(before)).toBe(true)
  })

  it('sets values of 64 bits without losing one', () => {
    const image = new ImageBytes(buildImage({ size: 65536 }).bytes)
    image.apply({ header: 'autoclear_features', value: '0x8000000000000001' })
    expect(image.get(88, 8)).toBe(0x8000000000000001n)
  })

  it('cuts and lengthens the file', () => {
    const { bytes } = buildImage({ size: 65536 })
    expect(patched(bytes, [{ fileSize: 100 }]).length).toBe(100)
    const longer = patched(bytes, [{ fileSize: bytes.length + 10 }])
    expect(longer.subarray(bytes.length).equals(Buffer.alloc(10))).toBe(true)
  })

  it('finds snapshots, extensions and bitmaps where they lie', () => {
    const snapshots = load('snapshots')
    expect(readText(snapshots, snapshots.snapshotAt(0) + 40 + 24, 6)).toBe('1first')
    expect(snapshots.snapshot(2, 'date_sec')).toBe(1_700_007_200)
    const bitmaps = load('bitmaps')
    expect(readText(bitmaps, bitmaps.bitmapAt(1) + 24, 4)).toBe('fine')
    expect(bitmaps.extensionAt('feature_names')).toBeGreaterThan(0)
    expect(bitmaps.extensionAt('data_file')).toBeUndefined()
  })

  it('refuses to poke past the file, and a table that is not there', () => {
    const image = new ImageBytes(buildImage({ size: 65536 }).bytes)
    expect(() => image.set(image.bytes.length - 4, 8, 1)).toThrow('past the file')
    expect(() => image.l2(0)).toThrow('no L2 table')
    expect(() => image.setRefcount(1_000_000, 1)).toThrow('no refcount block')
    expect(() => image.apply({ bitmap: 0, field: 'flags', value: 0 })).toThrow(
      'no header extension',
    )
  })
})

describeWithQemu('poke by the word of qemu-img', () => {
  it.each(['refcount-data-0', 'refcount-1-bit-0', 'refcount-64-bit-max', 'snapshot-l2-entry-l1'])(
    '%s is found by its check',
    async (name) => {
      const image = brokenImage(name)
      const path = unpackImage(image, tempFolder())
      const result = await qemuImg(['check', '-f', 'qcow2', path])
      expect(result.status).toBe(image.check.status)
      expect(result.stderr).toContain(image.check.complaint)
    },
  )
})

function load(name: string): ImageBytes {
  const image = imageManifest().whole.find((candidate) => candidate.name === name)!
  return new ImageBytes(readFileSync(unpackImage(image, tempFolder())))
}

function readText(image: ImageBytes, offset: number, length: number): string {
  return image.bytes.subarray(offset, offset + length).toString()
}
