/**
 * Pulling a layer into the image above it: every view of that image reads the same, what they lack is copied once and shared, and
 * QEMU finds neither an error nor a leak.
 */

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openChain, planPullLayer, pullLayer } from '../../src/chain/index.ts'
import { checkImage, createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

interface LayerShape {
  readonly size: number
  readonly clusterSize?: number
  readonly version?: 2 | 3
  readonly extendedL2?: boolean
  readonly refcountBits?: number
  readonly format?: 'raw' | 'qcow2'
}

interface Setting {
  readonly title: string
  readonly bottom?: LayerShape
  readonly middle: LayerShape
  readonly top: LayerShape
}

const SIZE = 512 * 1024

const SETTINGS: readonly Setting[] = [
  { title: 'equal clusters', bottom: shape(4096), middle: shape(4096), top: shape(4096) },
  { title: 'smaller above', bottom: shape(4096), middle: shape(65536), top: shape(512) },
  { title: 'larger above', bottom: shape(512), middle: shape(1024), top: shape(65536) },
  { title: 'nothing below', middle: shape(4096), top: shape(4096) },
  { title: 'a raw layer', middle: { size: SIZE, format: 'raw' }, top: shape(4096) },
  {
    title: 'a raw bottom',
    bottom: { size: SIZE, format: 'raw' },
    middle: shape(4096),
    top: shape(16384),
  },
  {
    title: 'extended L2',
    bottom: shape(4096),
    middle: shape(4096),
    top: { ...shape(16384), extendedL2: true },
  },
  {
    title: 'extended L2 throughout',
    bottom: { ...shape(16384), extendedL2: true },
    middle: { ...shape(16384), extendedL2: true },
    top: { ...shape(32768), extendedL2: true },
  },
  {
    title: 'version 2',
    bottom: shape(4096),
    middle: shape(4096),
    top: { ...shape(4096), version: 2 },
  },
  {
    title: 'one bit of refcount',
    bottom: shape(4096),
    middle: shape(4096),
    top: { ...shape(4096), refcountBits: 1 },
  },
  {
    title: 'two bits of refcount',
    bottom: shape(4096),
    middle: shape(4096),
    top: { ...shape(4096), refcountBits: 2 },
  },
  {
    title: 'a shorter layer',
    bottom: shape(4096),
    middle: { ...shape(4096), size: 200 * 1024 + 512 },
    top: shape(4096),
  },
  {
    title: 'a longer layer',
    bottom: { ...shape(4096), size: 100 * 1024 },
    middle: { ...shape(4096), size: 3 * SIZE },
    top: { ...shape(8192), size: SIZE - 1536 },
  },
]

function shape(clusterSize: number): LayerShape {
  return { size: SIZE, clusterSize }
}

/** Numbers that look random and are the same each time. */
function random(seed: string): (limit: number) => number {
  let count = 0
  return (limit) =>
    createHash('sha256').update(`${seed} ${count++}`).digest().readUInt32BE(0) % limit
}

async function make(
  folder: string,
  name: string,
  { format = 'qcow2', ...options }: LayerShape,
  backing?: { name: string; format: 'raw' | 'qcow2' },
): Promise<void> {
  const file = await FileDevice.open(nodeFiles, join(folder, name), {
    create: 'new',
    growable: true,
  })
  if (format === 'raw') await file.resize(options.size)
  else await createQcow2(file, { ...options, backing })
  await file.close()
}

async function scribble(path: string, format: 'raw' | 'qcow2', seed: string, count: number) {
  await using chain = await openChain(path, { writable: true, format })
  const pick = random(seed)
  const { device } = chain
  for (let step = 0; step < count; step++) {
    const offset = pick(device.size)
    const length = Math.min(device.size - offset, 1 + pick(24_000))
    const way = pick(8)
    if (way < 5) await device.write(offset, new Uint8Array(length).fill(1 + pick(255)))
    else if (way === 5) await device.write(offset, new Uint8Array(length))
    else if (way === 6) await device.writeZeroes(offset, length)
    else if (chain.active.image !== undefined) {
      const { clusterSize } = chain.active.image.geometry
      const at = offset - (offset % clusterSize)
      const whole = Math.min(clusterSize, device.size - at)
      await chain.active.image.writeCompressed(at, new Uint8Array(whole).fill(1 + pick(255)))
    }
  }
}

async function snapshot(path: string, name: string, resizeTo?: number): Promise<void> {
  await using chain = await openChain(path, { writable: true, format: 'qcow2' })
  const image = chain.active.image!
  await image.createSnapshot({ name })
  if (resizeTo !== undefined) await image.resizeDisk(resizeTo, { shrink: true })
}

/** All that the image reads as: its disk, its snapshots. */
async function views(path: string): Promise<readonly string[]> {
  await using chain = await openChain(path, { format: 'qcow2' })
  const image = chain.active.image!
  const found: string[] = []
  const digest = async (device: {
    size: number
    read(at: number, target: Uint8Array): Promise<void>
  }) => {
    const bytes = new Uint8Array(device.size)
    await device.read(0, bytes)
    found.push(`${device.size} ${createHash('sha256').update(bytes).digest('hex')}`)
  }
  await digest(image)
  for (const one of image.snapshots) await digest(await image.openSnapshot(one))
  return found
}

/** A chain of two or three files, the uppermost with snapshots. */
async function prepare(folder: string, { bottom, middle, top }: Setting): Promise<string> {
  const named = (name: string, { format = 'qcow2' }: LayerShape) => ({ name, format })
  if (bottom !== undefined) {
    await make(folder, 'bottom', bottom)
    await scribble(join(folder, 'bottom'), bottom.format ?? 'qcow2', 'bottom', 30)
  }
  await make(folder, 'middle', middle, bottom === undefined ? undefined : named('bottom', bottom))
  await scribble(join(folder, 'middle'), middle.format ?? 'qcow2', 'middle', 12)
  await make(folder, 'top', top, named('middle', middle))
  const path = join(folder, 'top')
  await snapshot(path, 'empty')
  await scribble(path, 'qcow2', 'first', 4)
  if (top.refcountBits === 1) return path
  await snapshot(path, 'one', top.version === 2 ? undefined : top.size + 40 * 1024)
  await scribble(path, 'qcow2', 'second', 3)
  await snapshot(path, 'two', top.version === 2 ? undefined : top.size - 20 * 1024)
  await scribble(path, 'qcow2', 'third', 2)
  return path
}

async function soundness(path: string): Promise<readonly number[]> {
  await using file = await FileDevice.open(nodeFiles, path)
  const { corruptions, checkErrors, leaks } = await checkImage(file)
  return [corruptions, checkErrors, leaks]
}

describe.each(SETTINGS)('$title', (setting) => {
  test('every view reads the same once the layer is gone', async () => {
    const folder = tempFolder()
    if (setting.top.refcountBits === 1) return expect(await pullOneBit(folder, setting)).toBe(true)
    const path = await prepare(folder, setting)
    const before = await views(path)
    expect(before.length).toBe(4)
    let cost: number
    {
      await using chain = await openChain(path, { format: 'qcow2' })
      cost = (await planPullLayer(chain)).takenLength
    }
    const oldSize = (await nodeFiles.stat(path)).size
    await pullLayer(path)
    await nodeFiles.unlink(join(folder, 'middle'))
    expect(await views(path)).toEqual(before)
    expect(await soundness(path)).toEqual([0, 0, 0])
    expect((await nodeFiles.stat(path)).size).toBeLessThanOrEqual(oldSize + cost + 4 * 65536)
    await using chain = await openChain(path, { format: 'qcow2' })
    expect(chain.layers.length).toBe(setting.bottom === undefined ? 1 : 2)
    expect(chain.warnings).toEqual([])
  })
})

/** Without snapshots: counts of one bit allow none. */
async function pullOneBit(folder: string, setting: Setting): Promise<boolean> {
  const { bottom, middle, top } = setting
  await make(folder, 'bottom', bottom as LayerShape)
  await scribble(join(folder, 'bottom'), 'qcow2', 'bottom', 30)
  await make(folder, 'middle', middle, { name: 'bottom', format: 'qcow2' })
  await scribble(join(folder, 'middle'), 'qcow2', 'middle', 12)
  await make(folder, 'top', top, { name: 'middle', format: 'qcow2' })
  const path = join(folder, 'top')
  await snapshot(path, 'empty')
  const before = await views(path)
  await pullLayer(path)
  await nodeFiles.unlink(join(folder, 'middle'))
  expect(await views(path)).toEqual(before)
  expect(await soundness(path)).toEqual([0, 0, 0])
  return true
}

describeWithQemu('QEMU on what was pulled', () => {
  test.each(SETTINGS.filter(({ top }) => top.refcountBits !== 1))(
    '$title: it finds no error and reads the same',
    async (setting) => {
      const folder = tempFolder()
      const path = await prepare(folder, setting)
      const read = async (name: string, extra: readonly string[]) => {
        const raw = join(folder, name)
        await qemuImgOk(['convert', '-O', 'raw', ...extra, path, raw])
        return createHash('sha256')
          .update(await bytesOf(raw))
          .digest('hex')
      }
      const all = async () => [
        await read('active', []),
        await read('empty', ['-l', 'snapshot.name=empty']),
        await read('one', ['-l', 'snapshot.name=one']),
        await read('two', ['-l', 'snapshot.name=two']),
      ]
      const before = await all()
      await pullLayer(path)
      expect(await all()).toEqual(before)
      const { status, stdout } = await qemuImg(['check', path])
      expect(stdout).toContain('No errors')
      expect(status).toBe(0)
    },
  )
})

async function bytesOf(path: string): Promise<Uint8Array> {
  await using file = await FileDevice.open(nodeFiles, path)
  const bytes = new Uint8Array(file.size)
  await file.read(0, bytes)
  return bytes
}
