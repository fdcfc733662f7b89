/**
 * Images that libvdsk wrote into, as a model of its write path does: `check -r all` mends them with every view reading as before,
 * also for qemu-img, and they can be written to again.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image, repairImage } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { LibvdskDisk } from '../support/libvdsk-writer.ts'
import { describeWithQemu, qemuImg } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'
import { numbers, viewDigests } from '../support/worn-image.ts'

interface Case {
  readonly name: string
  readonly clusterSize: number
  readonly size: number
  readonly version: 2 | 3
  /** Writes by libvdsk after the snapshots. */
  readonly writeCount: number
  /** Bytes of the longest write. */
  readonly longest: number
}

const MIB = 1024 * 1024

const CASES: readonly Case[] = [
  {
    ...{ name: 'a small one', clusterSize: 4096, size: 2 * MIB },
    ...{ version: 3, writeCount: 60, longest: 40_000 },
  },
  {
    ...{ name: 'one of version 2', clusterSize: 65536, size: 24 * MIB },
    ...{ version: 2, writeCount: 80, longest: 300_000 },
  },
  {
    ...{ name: 'one whose refcount table was outgrown', clusterSize: 512, size: 12 * MIB },
    ...{ version: 3, writeCount: 400, longest: 60_000 },
  },
  {
    ...{ name: 'one with several blocks behind the table', clusterSize: 512, size: 24 * MIB },
    ...{ version: 2, writeCount: 500, longest: 90_000 },
  },
]

/** A disk with snapshots by us, worn by libvdsk; and what its active disk must read as. */
async function worn(setting: Case, seed: number) {
  const { clusterSize, size, version } = setting
  const random = numbers(seed)
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size, clusterSize, version })
  const content = new Uint8Array(size)
  const somewhere = () => {
    const offset = Math.floor(random() * size)
    const length = Math.min(size - offset, 1 + Math.floor(random() * setting.longest))
    const bytes = new Uint8Array(length).fill(1 + Math.floor(random() * 255))
    content.set(bytes, offset)
    return { offset, bytes }
  }
  const image = await Qcow2Image.open(file.clone(), { writable: true })
  for (const name of ['first', 'second', 'third']) {
    for (let count = 0; count < 20; count++) {
      const { offset, bytes } = somewhere()
      await image.write(offset, bytes)
    }
    await image.createSnapshot({ name })
  }
  await image.flush()
  const disk = new LibvdskDisk((image.file as MemoryDevice).toBytes())
  await image.close()
  for (let count = 0; count < setting.writeCount; count++) {
    const { offset, bytes } = somewhere()
    disk.write(offset, bytes)
  }
  return { disk, content }
}

async function viewsOf(bytes: Uint8Array): Promise<string[]> {
  await using image = await Qcow2Image.open(MemoryDevice.from(bytes))
  return await viewDigests(image)
}

async function activeOf(bytes: Uint8Array): Promise<Uint8Array> {
  await using image = await Qcow2Image.open(MemoryDevice.from(bytes))
  const content = new Uint8Array(image.size)
  await image.read(0, content)
  return content
}

async function mended(bytes: Uint8Array): Promise<Uint8Array> {
  const file = MemoryDevice.from(bytes, { growable: true })
  const report = await repairImage(file, { what: 'all' })
  expect(report.suspicion).toBeUndefined()
  const { corruptions, leaks, checkErrors, failure } = report.after
  expect({ corruptions, leaks, checkErrors, failure }).toEqual({
    ...{ corruptions: 0, leaks: 0, checkErrors: 0, failure: undefined },
  })
  return file.toBytes()
}

describe.each(CASES)('$name', (setting) => {
  test('is broken as libvdsk breaks images, and mended with all its views', async () => {
    const { disk, content } = await worn(setting, setting.clusterSize + setting.version)
    const { bytes } = disk
    const { corruptions, leaks } = await checkImage(MemoryDevice.from(bytes))
    expect(leaks, 'counts that were never lowered').toBeGreaterThan(0)
    if (setting.clusterSize === 512) {
      expect(corruptions, 'blocks without a count').toBeGreaterThan(0)
      expect(disk.strayCounts, 'counts behind the table').toBeGreaterThan(0)
    }
    const views = await viewsOf(bytes)
    const result = await mended(bytes)
    expect(await viewsOf(result)).toEqual(views)
    expect(Buffer.from(await activeOf(result)).equals(content)).toBe(true)
  })

  test('goes on after the repair: by us, by libvdsk, and through another repair', async () => {
    const { disk, content } = await worn(setting, 77)
    const file = MemoryDevice.from(await mended(disk.bytes), { growable: true })
    const image = await Qcow2Image.open(file.clone(), { writable: true })
    await image.deleteSnapshot(image.snapshots[1]!)
    await image.createSnapshot({ name: 'fourth' })
    await image.write(0, new Uint8Array(100_000).fill(3))
    content.fill(3, 0, 100_000)
    await image.flush()
    const again = new LibvdskDisk((image.file as MemoryDevice).toBytes())
    await image.close()
    again.write(50_000, new Uint8Array(600_000).fill(4))
    content.fill(4, 50_000, 650_000)
    const views = await viewsOf(again.bytes)
    const result = await mended(again.bytes)
    expect(await viewsOf(result)).toEqual(views)
    // What libvdsk took for a refcount block is overwritten before there is anything to repair.
    const isWhole = Buffer.from(await activeOf(result)).equals(content)
    expect(isWhole || disk.strayCounts + again.strayCounts > 0).toBe(true)
  })
})

describeWithQemu('for qemu-img', () => {
  test.each(CASES)('$name is sound once mended, and reads the same', async (setting) => {
    const { disk, content } = await worn(setting, 5)
    const bytes = await mended(disk.bytes)
    await withTempFolder(async (folder) => {
      writeFileSync(join(folder, 'broken.qcow2'), disk.bytes)
      writeFileSync(join(folder, 'disk.qcow2'), bytes)
      writeFileSync(join(folder, 'disk.raw'), content)
      const cwd = { cwd: folder }
      const before = await qemuImg(['check', '-f', 'qcow2', 'broken.qcow2'], cwd)
      expect([2, 3]).toContain(before.status)
      const after = await qemuImg(['check', '-f', 'qcow2', 'disk.qcow2'], cwd)
      expect([after.status, after.stderr]).toEqual([0, ''])
      expect(after.stdout).toMatch(/^No errors were found on the image\.\n/)
      const words = ['compare', '-f', 'raw', '-F', 'qcow2', 'disk.raw', 'disk.qcow2']
      expect((await qemuImg(words, cwd)).stdout).toBe('Images are identical.\n')
    })
  })
})
