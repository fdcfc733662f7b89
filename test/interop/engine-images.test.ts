/**
 * The stored images of the real tools through the library: every whole one opens to the content that is written
 * down, and takes our writes so that qemu-img finds nothing wrong; every damaged one gives a typed error, or what
 * QEMU reads, in bounded memory, and stays as it is.
 */

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import type { BlockDevice } from '../../src/block/index.ts'
import { openChain } from '../../src/chain/index.ts'
import { checkImage, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { measureAllocations } from '../qcow2/hostile-limits.ts'
import { imageManifest, unpackImage, wholeImage } from '../support/image-matrix.ts'
import { describeWithQemu, qemuImg } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1024 * 1024
const { whole, broken } = imageManifest()
const readable = whole.filter(({ convert }) => convert.status === 0)
const unreadable = whole.filter(({ convert }) => convert.status !== 0)

async function digestOf(view: Pick<BlockDevice, 'size' | 'read'>): Promise<string> {
  const hash = createHash('sha256')
  const buffer = new Uint8Array(MIB)
  for (let at = 0; at < view.size; at += MIB) {
    const part = buffer.subarray(0, Math.min(MIB, view.size - at))
    await view.read(at, part)
    hash.update(part)
  }
  return hash.digest('hex')
}

/** The digests of all files in a folder. */
function filesOf(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex'),
      ]),
  )
}

describe('a whole image', () => {
  test.each(readable.map((image) => [image.name, image] as const))(
    '%s reads as the content that is written down, in each view, and stays as it is',
    async (_name, image) => {
      const folder = tempFolder()
      const path = unpackImage(image, folder)
      const before = filesOf(folder)
      await using chain = await openChain(path)
      expect(chain.device.size).toBe(image.virtualSize)
      expect(await digestOf(chain.device)).toBe(image.content)
      const active = chain.active.image!
      expect(active.snapshots.map(({ id, name }) => ({ id, name }))).toEqual(
        image.snapshots.map(({ id, name }) => ({ id, name })),
      )
      for (const [index, { content, virtualSize, vmStateSize }] of image.snapshots.entries()) {
        const record = active.snapshots[index]!
        const view = await active.openSnapshot(record)
        expect([view.size, record.vmStateSize]).toEqual([virtualSize, vmStateSize])
        expect(await digestOf(view)).toBe(content)
      }
      await chain.close()
      expect(filesOf(folder)).toEqual(before)
    },
  )

  test.each(unreadable.map((image) => [image.name, image] as const))(
    '%s, which needs what is not there, is refused with a reason and stays as it is',
    async (_name, image) => {
      const folder = tempFolder()
      const path = unpackImage(image, folder)
      const before = filesOf(folder)
      for (const writable of [false, true]) {
        const attempt = async () => {
          await using chain = await openChain(path, { writable })
          await chain.device.read(0, new Uint8Array(512))
        }
        await expect(attempt()).rejects.toBeInstanceOf(CowpointError)
        expect(filesOf(folder)).toEqual(before)
      }
    },
  )
})

describeWithQemu('after our writes to an image of the real tools', () => {
  const writable = readable.filter(({ openWritable, check }) => {
    return openWritable.status === 0 && check !== undefined
  })

  test.each(writable.map((image) => [image.name, image] as const))(
    'qemu-img finds nothing wrong with %s and reads what we read',
    async (_name, image) => {
      const folder = tempFolder()
      const path = unpackImage(image, folder)
      const digests = await writeAround(path)
      const check = await qemuImg(['check', '-f', 'qcow2', image.file], { cwd: folder })
      // Leaks that were there stay; nothing else may be wrong.
      const leaksBefore = image.check!.leaks > 0
      expect([leaksBefore ? [0, 3] : [0], check.stderr]).toEqual([
        expect.arrayContaining([check.status]),
        expect.not.stringMatching(/ERROR/),
      ])
      const raw = join(folder, 'content.raw')
      const convert = await qemuImg(['convert', '-O', 'raw', image.file, raw], { cwd: folder })
      expect(convert.status, convert.stderr).toBe(0)
      expect(createHash('sha256').update(readFileSync(raw)).digest('hex')).toBe(digests.active)
      await using chain = await openChain(path)
      for (const [index, content] of digests.snapshots.entries()) {
        const record = chain.active.image!.snapshots[index]!
        expect(await digestOf(await chain.active.image!.openSnapshot(record))).toBe(content)
      }
    },
  )
})

/** A request of every kind, with verbs in between; the digests of all views as they are then. */
async function writeAround(path: string): Promise<{ active: string; snapshots: string[] }> {
  await using chain = await openChain(path, { writable: true })
  const image = chain.active.image!
  const { size } = image
  const { clusterSize } = image.geometry
  const at = (share: number) => Math.floor(size * share)
  const bytes = (length: number) => new Uint8Array(Math.max(0, length)).fill(0xa5)
  const canSnapshot = image.dataFileReference === undefined && image.geometry.refcountBits > 2
  if (size > 0) {
    await image.write(at(0.1), bytes(Math.min(5000, size - at(0.1))))
    if (canSnapshot) await image.createSnapshot({ name: 'ours' })
    await image.write(at(0.5), bytes(Math.min(3 * clusterSize, size - at(0.5))))
    await image.writeZeroes(at(0.3), Math.min(2 * clusterSize, size - at(0.3)))
    await image.discard(at(0.6), size - at(0.6))
    await image.write(size - 1, bytes(1))
    if (image.dataFileReference === undefined) {
      const offset = at(0.4) - (at(0.4) % clusterSize)
      await image.writeCompressed(offset, bytes(Math.min(clusterSize, size - offset)))
    }
  }
  const last = image.snapshots.at(-1)
  if (canSnapshot && last !== undefined) {
    await image.createSnapshot({ name: 'ours too' })
    await image.deleteSnapshot(last)
  }
  if (image.header.version === 3) await image.resize(Math.ceil(size / 512) * 512 + 1024)
  await image.flush()
  const snapshots: string[] = []
  for (const record of image.snapshots) {
    snapshots.push(await digestOf(await image.openSnapshot(record)))
  }
  return { active: await digestOf(chain.device), snapshots }
}

/** Images with which nobody could read more than this need not be given more. */
const MEMORY_LIMIT = 48 * MIB

describe('a damaged image', () => {
  test.each(broken.map((image) => [image.name, image] as const))(
    '%s gives a typed error or what QEMU reads, and stays as it is',
    async (_name, image) => {
      const folder = tempFolder()
      const path = unpackImage(image, folder)
      const before = filesOf(folder)
      // Where QEMU refuses and we do not, the damage is in what reading does not need: bitmaps, refcounts.
      const undamaged = wholeImage(image.base).content
      const largest = await measureAllocations(async () => {
        const digest = await outcome(() => readAll(path))
        if (!(digest instanceof CowpointError)) expect(digest).toBe(image.content ?? undamaged)
        await outcome(() => lookAround(path))
      })
      expect(largest).toBeLessThan(MEMORY_LIMIT)
      expect(filesOf(folder)).toEqual(before)
    },
  )

  test.each(broken.map((image) => [image.name, image] as const))(
    '%s opens for writing, or not at all and stays as it is',
    async (_name, image) => {
      const folder = tempFolder()
      const path = unpackImage(image, folder)
      const before = filesOf(folder)
      const opened = await outcome(async () => {
        await using _chain = await openChain(path, { format: 'qcow2', writable: true })
      })
      if (opened instanceof CowpointError) {
        expect(filesOf(folder)).toEqual(before)
        return
      }
      const largest = await measureAllocations(() => outcome(() => workOn(path)))
      expect(largest).toBeLessThan(MEMORY_LIMIT)
    },
  )
})

/** What `action` gives, or the CowpointError that it rejects with; others are thrown. */
async function outcome<T>(action: () => Promise<T>): Promise<T | CowpointError> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof CowpointError) return error
    throw error
  }
}

async function readAll(path: string): Promise<string> {
  await using chain = await openChain(path, { format: 'qcow2' })
  return await digestOf(chain.device)
}

/** Everything else that looks at an image. */
async function lookAround(path: string): Promise<void> {
  await using file = await FileDevice.open(nodeFiles, path, {})
  await outcome(() => checkImage(file))
  await using chain = await openChain(path, { format: 'qcow2', onBroken: 'report' })
  const image = chain.active.image
  if (image === undefined) return
  await outcome(() => image.bitmaps())
  await outcome(async () => {
    for (let at = 0; at < image.size; ) at += (await image.map(at, image.size - at)).length
  })
  await outcome(async () => {
    for (let at = 0; at < image.size; ) {
      const extents = await image.extents(at, image.size - at)
      for (const { length } of extents) at += length
    }
  })
  for (const record of image.snapshots) {
    await outcome(async () => {
      const view = await image.openSnapshot(record)
      const part = new Uint8Array(Math.min(view.size, MIB))
      await view.read(0, part)
    })
  }
}

/** Requests and verbs on a damaged image; each may be refused with a typed error. */
async function workOn(path: string): Promise<void> {
  await using chain = await openChain(path, { format: 'qcow2', writable: true })
  const image = chain.active.image
  if (image === undefined) return
  const steps: ((image: Qcow2Image) => Promise<unknown>)[] = [
    (i) => i.write(0, new Uint8Array(Math.min(i.size, 200_000)).fill(1)),
    (i) => i.createSnapshot({ name: 'ours' }),
    (i) => i.write(Math.floor(i.size / 2), new Uint8Array(Math.min(100, i.size)).fill(2)),
    async (i) => {
      const [first] = i.snapshots
      if (first !== undefined) await i.applySnapshot(first)
    },
    async (i) => {
      const last = i.snapshots.at(-1)
      if (last !== undefined) await i.deleteSnapshot(last)
    },
    (i) => i.discard(0, i.size),
    (i) => i.resize(i.size + 65_536),
    (i) => i.flush(),
  ]
  for (const step of steps) await outcome(() => step(image))
}
