/** What the builder builds is a qcow2 image to the real tools, and says where everything lies. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { buildImage, filled, type ImageSpec } from './image-builder.ts'
import { ImageBytes } from './poke.ts'
import { describeWithQemu, qemuImg, qemuImgOk } from './qemu.ts'
import { tempFolder } from './temp.ts'

/** One of each kind of cluster, and two snapshots, in the given geometry. */
function everything(geometry: Partial<ImageSpec>): ImageSpec {
  const clusterSize = 2 ** (geometry.clusterBits ?? 16)
  const zero = geometry.version === 2 ? ({} as const) : ({ 2: { kind: 'zero' } } as const)
  return {
    size: 200 * clusterSize,
    content: {
      0: { kind: 'data', bytes: filled(1, clusterSize) },
      1: { kind: 'data', bytes: filled(2, clusterSize / 2) },
      ...zero,
      190: { kind: 'data', bytes: filled(3, clusterSize) },
    },
    snapshots: [
      { id: '1', name: 'shares', content: { 0: { kind: 'shared' } } },
      { id: '2', name: 'own', content: { 1: { kind: 'data', bytes: filled(9, clusterSize) } } },
    ],
    ...geometry,
  }
}

const geometries: readonly Partial<ImageSpec>[] = [
  { clusterBits: 9 },
  { clusterBits: 9, refcountOrder: 6 },
  { clusterBits: 12, refcountOrder: 1 },
  { clusterBits: 12, version: 2 },
  { clusterBits: 16, refcountOrder: 3, extendedL2: true },
  { clusterBits: 16, headerLength: 104 },
  { clusterBits: 14, spareClusterCount: 3 },
]

describe('the image builder', () => {
  it('says where tables and data lie', () => {
    const built = buildImage(everything({ clusterBits: 12 }))
    const image = new ImageBytes(built.bytes)
    expect(image.header('l1_table_offset')).toBe(built.l1)
    expect(image.header('snapshots_offset')).toBe(built.snapshotTable)
    expect(image.l2(0) & 0x00fffffffffffe00n).toBe(BigInt(built.data.get(0)!))
    expect(image.bytes[built.data.get(190)!]).toBe(3)
    expect(image.l2At(0)).toBe(built.l2.get(0)!)
  })

  it('counts a shared cluster twice and clears its copied flag', () => {
    const built = buildImage(everything({ clusterBits: 12 }))
    const image = new ImageBytes(built.bytes)
    expect(image.refcount(built.data.get(0)! / 4096)).toBe(2n)
    expect(image.l2(0) >> 63n).toBe(0n)
    expect(image.l2(1) >> 63n).toBe(1n)
  })

  it('lets a test have its way with header fields, entries and refcounts', () => {
    const built = buildImage({
      size: 65536,
      content: { 0: { kind: 'raw', entry: 0xdeadn } },
      refcounts: { 0: 7 },
      header: { crypt_method: 5 },
    })
    const image = new ImageBytes(built.bytes)
    expect([image.l2(0), image.refcount(0), image.header('crypt_method')]).toEqual([0xdeadn, 7n, 5])
  })
})

describeWithQemu('the image builder by the word of qemu-img', () => {
  it.each(geometries.map((geometry) => [JSON.stringify(geometry), geometry] as const))(
    'builds a clean image for %s',
    async (_text, geometry) => {
      const cwd = tempFolder()
      const spec = everything(geometry)
      const clusterSize = 2 ** (geometry.clusterBits ?? 16)
      writeFileSync(join(cwd, 'disk.qcow2'), buildImage(spec).bytes)
      const check = await qemuImg(['check', '-f', 'qcow2', 'disk.qcow2'], { cwd })
      expect(check.stderr + check.stdout).toContain('No errors were found on the image')
      const disk = Buffer.alloc(spec.size)
      disk.fill(1, 0, clusterSize).fill(2, clusterSize, 1.5 * clusterSize)
      disk.fill(3, 190 * clusterSize, 191 * clusterSize)
      expect((await contentOf(cwd, [])).equals(disk)).toBe(true)
      const own = Buffer.alloc(spec.size).fill(9, clusterSize, 2 * clusterSize)
      expect((await contentOf(cwd, ['-l', 'own'])).equals(own)).toBe(true)
    },
  )

  it('builds a header with backing file and extensions', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'base.raw'), filled(5, 65536))
    const { bytes } = buildImage({
      size: 131072,
      backing: { name: 'base.raw', format: 'raw' },
      extensions: [{ type: 0x11223344, data: Buffer.from('whatever') }],
    })
    writeFileSync(join(cwd, 'disk.qcow2'), bytes)
    const info = JSON.parse(await qemuImgOk(['info', '--output=json', 'disk.qcow2'], { cwd }))
    expect(info['backing-filename']).toBe('base.raw')
    expect(info['backing-filename-format']).toBe('raw')
    const expected = Buffer.concat([filled(5, 65536), filled(0, 65536)])
    expect((await contentOf(cwd, [])).equals(expected)).toBe(true)
  })

  async function contentOf(cwd: string, which: string[]): Promise<Buffer> {
    await qemuImgOk(['convert', ...which, '-f', 'qcow2', '-O', 'raw', 'disk.qcow2', 'out.raw'], {
      cwd,
    })
    return readFileSync(join(cwd, 'out.raw'))
  }
})
