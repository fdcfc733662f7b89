/**
 * Pulling a layer into the image above it: every view of that image reads the same, what they lack is copied once and shared, and
 * QEMU finds neither an error nor a leak.
 */

import { createHash } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { BlockDevice } from '../../src/block/index.ts'
import { openChain, planPullLayer, pullLayer } from '../../src/chain/index.ts'
import { checkImage, createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'
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
const TOP = '/top'
const SEEDS = Array.from({ length: Number(process.env.COWPOINT_PULLS ?? 2) }, (_, seed) => seed)

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
  files: FileSystem,
  path: string,
  { format = 'qcow2', ...options }: LayerShape,
  below?: { name: string; shape: LayerShape },
): Promise<void> {
  const file = await FileDevice.open(files, path, { create: 'new', growable: true })
  const backing = below && { name: below.name, format: below.shape.format ?? 'qcow2' }
  if (format === 'raw') await file.resize(options.size)
  else await createQcow2(file, { ...options, backing })
  await file.close()
}

async function scribble(
  files: FileSystem,
  path: string,
  format: 'raw' | 'qcow2',
  seed: string,
  count: number,
): Promise<void> {
  await using chain = await openChain(path, { files, writable: true, format })
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

async function snapshot(
  files: FileSystem,
  path: string,
  name: string,
  resizeTo?: number,
): Promise<void> {
  await using chain = await openChain(path, { files, writable: true, format: 'qcow2' })
  const image = chain.active.image!
  try {
    await image.createSnapshot({ name })
  } catch (error) {
    // Several compressed clusters in one can have more references than two bits count.
    if ((error as { code?: string }).code !== 'REFCOUNT_OVERFLOW') throw error
  }
  if (resizeTo !== undefined) await image.resizeDisk(resizeTo, { shrink: true })
}

/** All that the image reads as: its disk, its snapshots. */
async function views(files: FileSystem, path: string): Promise<readonly string[]> {
  await using chain = await openChain(path, { files, format: 'qcow2' })
  const image = chain.active.image!
  const found: string[] = []
  const digest = async (device: Pick<BlockDevice, 'size' | 'read'>) => {
    const bytes = new Uint8Array(device.size)
    await device.read(0, bytes)
    found.push(`${device.size} ${createHash('sha256').update(bytes).digest('hex')}`)
  }
  await digest(image)
  for (const one of image.snapshots) await digest(await image.openSnapshot(one))
  return found
}

/** `bottom`, `middle` and `top` in the root folder, the last with snapshots of several sizes, as far as its format has room. */
async function prepare({ bottom, middle, top }: Setting, seed = 0): Promise<DiskFiles> {
  const files = new DiskFiles()
  const fill = (path: string, { format = 'qcow2' }: LayerShape, count: number, words = path) =>
    scribble(files, path, format, `${seed} ${words}`, count)
  if (bottom !== undefined) {
    await make(files, '/bottom', bottom)
    await fill('/bottom', bottom, 30)
  }
  await make(files, '/middle', middle, bottom && { name: 'bottom', shape: bottom })
  await fill('/middle', middle, 12)
  await make(files, TOP, top, { name: 'middle', shape: middle })
  await snapshot(files, TOP, 'empty')
  // Counts of one bit allow no cluster that is shared.
  if (top.refcountBits === 1) return files
  await fill(TOP, top, 4, 'first')
  const sizes = top.version === 2 ? [] : [top.size + 40 * 1024, top.size - 20 * 1024]
  await snapshot(files, TOP, 'one', sizes[0])
  await fill(TOP, top, 3, 'second')
  await snapshot(files, TOP, 'two', sizes[1])
  await fill(TOP, top, 2, 'third')
  return files
}

async function soundness(files: FileSystem, path: string): Promise<readonly number[]> {
  await using file = await FileDevice.open(files, path)
  const { corruptions, checkErrors, leaks } = await checkImage(file)
  return [corruptions, checkErrors, leaks]
}

describe.each(SETTINGS)('$title', (setting) => {
  test.each(SEEDS)('every view reads the same once the layer is gone, seed %i', async (seed) => {
    const files = await prepare(setting, seed)
    const before = await views(files, TOP)
    const oldSize = (await files.stat(TOP)).size
    let cost: number
    {
      await using chain = await openChain(TOP, { files, format: 'qcow2' })
      cost = (await planPullLayer(chain)).takenLength
    }
    await pullLayer(TOP, { files })
    await files.unlink('/middle')
    expect(await views(files, TOP)).toEqual(before)
    expect(await soundness(files, TOP)).toEqual([0, 0, 0])
    expect((await files.stat(TOP)).size).toBeLessThanOrEqual(oldSize + cost + 4 * 65536)
    await using chain = await openChain(TOP, { files, format: 'qcow2' })
    expect(chain.layers.length).toBe(setting.bottom === undefined ? 1 : 2)
    expect(chain.warnings).toEqual([])
  })
})

describe.each(SETTINGS)('$title', ({ bottom, middle, top }) => {
  test.each(SEEDS)(
    'a snapshot that shares all makes no difference to what is copied, seed %i',
    async (seed) => {
      const files = new DiskFiles()
      const fill = (path: string, { format = 'qcow2' }: LayerShape, count: number) =>
        scribble(files, path, format, `${seed} ${path}`, count)
      const cost = async () => {
        await using chain = await openChain(TOP, { files, format: 'qcow2' })
        return planPullLayer(chain)
      }
      if (bottom !== undefined) {
        await make(files, '/bottom', bottom)
        await fill('/bottom', bottom, 10)
      }
      await make(files, '/middle', middle, bottom && { name: 'bottom', shape: bottom })
      await fill('/middle', middle, 20)
      await make(files, TOP, top, { name: 'middle', shape: middle })
      await fill(TOP, top, 6)
      const alone = await cost()
      await snapshot(files, TOP, 'one')
      const shared = await cost()
      expect(alone.dataLength).toBe(shared.dataLength)
      expect(alone.takenLength).toBeLessThanOrEqual(shared.takenLength)
      expect(alone.takenLength).toBeGreaterThan(alone.dataLength)
    },
  )
})

test('what several views lack is stored once', async () => {
  const files = new DiskFiles()
  const size = 1024 * 1024
  await make(files, '/middle', { size })
  await scribble(files, '/middle', 'qcow2', 'all', 0)
  {
    await using chain = await openChain('/middle', { files, writable: true, format: 'qcow2' })
    await chain.device.write(0, new Uint8Array(size).fill(1))
  }
  await make(files, TOP, { size }, { name: 'middle', shape: { size } })
  for (const name of ['a', 'b', 'c', 'd']) await snapshot(files, TOP, name)
  await pullLayer(TOP, { files })
  expect((await files.stat(TOP)).size).toBeLessThan(size + 24 * 65536)
  expect(await soundness(files, TOP)).toEqual([0, 0, 0])
})

test('a layer without anything below it has nothing to pull', async () => {
  const files = new DiskFiles()
  await make(files, TOP, { size: SIZE })
  await expect(pullLayer(TOP, { files })).rejects.toMatchObject({ code: 'NO_BACKING' })
})

test('a pull that is stopped leaves the image as it was', async () => {
  const files = await prepare(SETTINGS[0] as Setting)
  const before = files.contents(TOP)
  const stop = new AbortController()
  const onProgress = ({ done }: { done: number }) => {
    if (done > SIZE / 4) stop.abort(new Error('enough'))
  }
  const pull = pullLayer(TOP, { files, signal: stop.signal, onProgress })
  await expect(pull).rejects.toThrow('enough')
  expect(Buffer.compare(files.contents(TOP), before)).toBe(0)
})

describeWithQemu('QEMU on what was pulled', () => {
  test.each(SETTINGS)('$title: it finds no error and reads the same', async (setting) => {
    const folder = tempFolder()
    ;(await prepare(setting)).dump(folder)
    const path = join(folder, TOP)
    const names = setting.top.refcountBits === 1 ? ['empty'] : ['empty', 'one', 'two']
    const read = async (extra: readonly string[]) => {
      const raw = join(folder, 'raw')
      await qemuImgOk(['convert', '-O', 'raw', ...extra, path, raw])
      return createHash('sha256').update(readFileSync(raw)).digest('hex')
    }
    const all = async () => {
      const found = [await read([])]
      for (const name of names) found.push(await read(['-l', `snapshot.name=${name}`]))
      return found
    }
    const before = await all()
    await pullLayer(path)
    rmSync(join(folder, 'middle'))
    expect(await all()).toEqual(before)
    const { status, stdout } = await qemuImg(['check', path])
    expect(stdout).toContain('No errors')
    expect(status).toBe(0)
  })
})
