/** Removing checkpoints: which way a layer goes, what is refused, full disks, strangers, raw bases, bitmaps, the trash. */

import { describe, expect, test } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import {
  CheckpointCatalogue,
  convertCheckpoint,
  createCheckpoint,
  listTrash,
  planRemoval,
  purgeTrash,
  removeCheckpoint,
  resumeCheckpoints,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { CheckpointModel, openActive } from '../support/checkpoint-model.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { REMOVAL_SCENES, stage } from '../support/removal-scenes.ts'

const SIZE = 64 * 1024
const BLOCK = 4096

function sceneOf(title: string) {
  const found = REMOVAL_SCENES.find((scene) => scene.title === title)
  if (found === undefined) throw new Error(`no scene ${title}`)
  return found
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

/** A disk with external checkpoints `a`, `b`, `c`, of which `b` holds much and the layer above it little. */
async function uneven(): Promise<CheckpointModel> {
  const model = await CheckpointModel.create([{ size: SIZE, clusterSize: 4096 }])
  const sizes = { a: 4096, b: 40_000, c: 4096 }
  for (const [name, length] of Object.entries(sizes)) {
    await model.write(0, 0, new Uint8Array(length).fill(name.charCodeAt(0)))
    await createCheckpoint(await model.catalogue(), { name, kind: 'external' })
    model.noteCheckpoint(name)
  }
  await model.write(0, 8192, new Uint8Array(4096).fill(9))
  return model
}

describe('which way', () => {
  test('what moves fewer bytes is chosen, and the plan shows the others', async () => {
    const model = await uneven()
    const plan = await planRemoval(await model.catalogue(), 'b')
    const bytes = Object.fromEntries(
      (plan.alternatives ?? []).map(({ name, bytesWritten }) => [name, bytesWritten]),
    )
    expect(bytes).toEqual({ push: 4096, pull: 9 * 4096, keep: 0 })
    expect(plan.bytesWritten).toBe(4096)
    expect(plan.steps[0]).toMatch(/^push /)
    expect(plan.peakSpace).toBeGreaterThanOrEqual(4096)
    const other = await planRemoval(await model.catalogue(), 'a')
    expect(other.steps[0]).toMatch(/^pull /)
    expect(other.bytesWritten).toBe(0)
    await model.checkViews('after plans')
  })

  test('a way that cannot be gone is refused with the reason, and nothing changes', async () => {
    const model = await stage(sceneOf('keep below two overlays'))
    const catalogue = await model.catalogue()
    expect(await codeOf(removeCheckpoint(catalogue, 'b', { direction: 'push' }))).toBe(
      'DIRECTION_IMPOSSIBLE',
    )
    expect(await codeOf(removeCheckpoint(catalogue, 'nothing'))).toBe('CHECKPOINT_NOT_FOUND')
    await model.checkViews('refused')
    await model.checkFiles('refused')
  })

  test('with several overlays the layer is kept where pulling would take more space', async () => {
    const model = await stage(sceneOf('keep below two overlays'))
    const { plan } = await removeCheckpoint(await model.catalogue(), 'b')
    const pulled = plan.alternatives?.find(({ name }) => name === 'pull')?.bytesWritten ?? 0
    const layer = plan.touches.map(({ path }) => path).find((path) => path.includes('.b.'))
    expect(layer).toBeDefined()
    const { allocated } = await model.files.stat(
      plan.steps[0]?.startsWith('keep') ? (layer ?? '') : '/vm/disk0.qcow2',
    )
    expect(plan.steps[0]).toMatch(pulled < allocated ? /^pull/ : /^keep/)
    model.checkpoints.delete('b')
    await model.checkViews('removed')
  })
})

describe('full disks', () => {
  const titles = [
    'push in the middle of a line',
    'pull in the middle of a line',
    'pull into two overlays, one with a snapshot',
    'two disks',
  ]
  test.each(titles)('%s: every view stays right however little space there is', async (title) => {
    const scene = sceneOf(title)
    const model = await stage(scene)
    const { direction } = scene
    let refused = 0
    for (let spare = 0; ; spare++) {
      const tight = model.clone()
      tight.files.blockLimit = tight.files.usedBlocks + spare
      const removal = removeCheckpoint(await tight.catalogue(), scene.name, { direction })
      const code = await codeOf(removal)
      const going = new Set([scene.name])
      await tight.checkViews(`${spare} blocks: ${code}`, tight.files, { going, isCut: true })
      tight.files.blockLimit = Number.POSITIVE_INFINITY
      if (code === 'done') break
      expect(code).toBe('NO_SPACE')
      refused++
      await resumeCheckpoints(await tight.catalogue())
      const again = codeOf(removeCheckpoint(await tight.catalogue(), scene.name, { direction }))
      expect(['done', 'CHECKPOINT_NOT_FOUND']).toContain(await again)
      tight.checkpoints.delete(scene.name)
      await tight.checkViews(`${spare} blocks, again`)
      await tight.checkFiles(`${spare} blocks, again`)
    }
    expect(refused).toBeGreaterThan(2)
  })

  test('too little space is told before anything is done, and how much is missing', async () => {
    const model = await uneven()
    const free = 1000
    const files: FileSystem = new Proxy(model.files, {
      get(target, key) {
        if (key === 'freeSpace') return async () => free
        const value = Reflect.get(target, key, target) as unknown
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    model.files.changed.clear()
    const removal = removeCheckpoint(await model.catalogue(files), 'b', { direction: 'pull' })
    const error = await removal.catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'NO_SPACE', context: { free } })
    const { needed, missing } = (error as { context: { needed: number; missing: number } }).context
    expect(missing).toBe(needed - free)
    expect(needed).toBeGreaterThan(9 * BLOCK)
    expect([...model.files.changed].filter((path) => path.endsWith('.qcow2'))).toEqual([])
  })
})

describe('what stands on a layer', () => {
  test('an overlay that somebody else made is pulled into, and keeps its content', async () => {
    const model = await uneven()
    const base = (await model.nodes()).get('b')?.places[0]?.layer.path ?? ''
    const file = await FileDevice.open(model.files, '/vm/clone.qcow2', {
      create: 'new',
      growable: true,
    })
    const backing = { name: base.slice('/vm/'.length), format: 'qcow2' }
    await createQcow2(file, { size: SIZE, clusterSize: 512, backing })
    await file.close()
    const cloneBytes = async () => {
      await using chain = await openActive(model.files, '/vm/clone.qcow2', false)
      const bytes = new Uint8Array(SIZE)
      await chain.device.read(0, bytes)
      return Buffer.from(bytes).toString('latin1')
    }
    const before = await cloneBytes()
    for (const direction of ['pull', 'keep'] as const) {
      const twin = model.clone()
      await removeCheckpoint(await twin.catalogue(), 'b', { direction })
      twin.checkpoints.delete('b')
      await twin.checkViews(direction)
      await using chain = await openActive(twin.files, '/vm/clone.qcow2', false)
      const bytes = new Uint8Array(SIZE)
      await chain.device.read(0, bytes)
      expect(Buffer.from(bytes).toString('latin1') === before).toBe(true)
    }
  })

  test('a raw base is pulled up into its only overlay', async () => {
    const model = await CheckpointModel.create([{ size: SIZE, clusterSize: 4096 }])
    const raw = await FileDevice.open(model.files, '/vm/base.raw', {
      create: 'new',
      growable: true,
    })
    await raw.write(0, new Uint8Array(SIZE).fill(7))
    await raw.close()
    const catalogue = async () => {
      return CheckpointCatalogue.find({ images: ['/vm/base.raw'], files: model.files })
    }
    await model.files.unlink('/vm/disk0.qcow2')
    await createCheckpoint(await catalogue(), { name: 'raw', overlays: ['/vm/over.qcow2'] })
    const read = async (files: FileSystem) => {
      await using chain = await openChain('/vm/over.qcow2', { files })
      const bytes = new Uint8Array(SIZE)
      await chain.device.read(0, bytes)
      return [chain.layers.length, bytes.every((byte) => byte === 7)]
    }
    expect(await read(model.files)).toEqual([2, true])
    const keeping = removeCheckpoint(await catalogue(), 'raw', { direction: 'keep' })
    expect(await codeOf(keeping)).toBe('DIRECTION_IMPOSSIBLE')
    const pushing = removeCheckpoint(await catalogue(), 'raw', { direction: 'push' })
    expect(await codeOf(pushing)).toBe('DIRECTION_IMPOSSIBLE')
    await removeCheckpoint(await catalogue(), 'raw')
    expect(await read(model.files)).toEqual([1, true])
    expect(model.files.paths.filter((path) => path.startsWith('/vm/base'))).toEqual([])
  })

  test('a raw base of several overlays stays as a hidden layer until one of them is left', async () => {
    const files = new DiskFiles()
    files.put('/base.raw', new Uint8Array(SIZE).fill(7))
    const catalogue = (path = '/over.qcow2') => CheckpointCatalogue.find({ images: [path], files })
    await createCheckpoint(await catalogue('/base.raw'), { name: 'raw', overlays: ['/over.qcow2'] })
    await createCheckpoint(await catalogue(), { name: 'later', kind: 'external' })
    await revertTo(await catalogue(), { checkpoint: 'raw', keepAs: 'tip' })
    await removeCheckpoint(await catalogue(), 'raw', { direction: 'keep' })
    const nodes = () => catalogue().then((one) => one.trees())
    const hidden = (await nodes()).flatMap((tree) => [...tree.nodes.values()])
    expect(hidden.filter(({ isHidden }) => isHidden).map(({ name }) => name)).toEqual(['raw'])
    for (const { name } of hidden.filter((node) => !node.isHidden)) {
      await removeCheckpoint(await catalogue(), name)
    }
    expect(files.paths.filter((path) => !path.startsWith('/.cowpoint'))).toEqual(['/over.qcow2'])
    await using chain = await openActive(files, '/over.qcow2', false)
    const bytes = new Uint8Array(SIZE)
    await chain.device.read(0, bytes)
    expect([chain.layers.length, bytes.every((byte) => byte === 7)]).toEqual([1, true])
  })

  test('layers that other programs made are removed by the names of their files', async () => {
    for (const direction of ['push', 'pull'] as const) {
      const model = await CheckpointModel.create([{ size: SIZE, clusterSize: 4096 }])
      const chain = ['disk0.qcow2', 'middle.qcow2', 'top.qcow2']
      for (const [index, name] of chain.slice(1).entries()) {
        const path = `/vm/${name}`
        const file = await FileDevice.open(model.files, path, { create: 'new', growable: true })
        const backing = { name: chain[index] as string, format: 'qcow2' }
        await createQcow2(file, { size: SIZE, clusterSize: 4096, backing })
        await file.close()
        await using opened = await openActive(model.files, path)
        await opened.device.write(index * 8192, new Uint8Array(8192).fill(index + 1))
      }
      const read = async () => {
        await using opened = await openActive(model.files, '/vm/top.qcow2', false)
        const bytes = new Uint8Array(SIZE)
        await opened.device.read(0, bytes)
        return [Buffer.from(bytes).toString('latin1'), opened.layers.length] as const
      }
      const [before] = await read()
      const images = ['/vm/top.qcow2']
      const catalogue = await CheckpointCatalogue.find({ images, files: model.files })
      await removeCheckpoint(catalogue, 'middle.qcow2', { direction, verify: 'content' })
      const [after, depth] = await read()
      expect(after === before, direction).toBe(true)
      expect(depth, direction).toBe(2)
    }
  })

  test('bitmaps of the overlay live on in the layer that takes its place', async () => {
    const model = await uneven()
    {
      await using chain = await openActive(model.files, model.images[0] as string)
      await chain.active.image?.changeBitmaps([
        { action: 'add', name: 'backup', granularity: 4096 },
        { action: 'add', name: 'off', enabled: false },
      ])
    }
    await model.write(0, 20_480, new Uint8Array(4096).fill(3))
    await removeCheckpoint(await model.catalogue(), 'c', { direction: 'push' })
    model.checkpoints.delete('c')
    await model.checkViews('pushed')
    const file = await FileDevice.open(model.files, model.images[0] as string)
    const image = await Qcow2Image.open(file)
    const bitmaps = await image.bitmaps()
    expect(bitmaps.map(({ name, auto, inUse }) => [name, auto, inUse])).toEqual([
      ['backup', true, false],
      ['off', false, false],
    ])
    const dirty: { offset: number; length: number }[] = []
    await image.readBitmap('backup', (ranges) => {
      dirty.push(...ranges)
    })
    expect(dirty).toEqual([{ offset: 20_480, length: 4096 }])
    await image.close()
  })

  test('a disk that shrank or grew after the checkpoint keeps its size', async () => {
    for (const [size, direction] of [
      [SIZE * 3, 'push'],
      [SIZE / 2, 'push'],
      [SIZE * 3, 'pull'],
      [SIZE / 2, 'pull'],
    ] as const) {
      const model = await uneven()
      {
        await using chain = await openActive(model.files, model.images[0] as string)
        await chain.active.image?.resizeDisk(size, { shrink: true })
        const next = new Uint8Array(size)
        next.set((model.current[0] as Uint8Array).subarray(0, size))
        model.current = [next]
      }
      await removeCheckpoint(await model.catalogue(), 'c', { direction, verify: 'content' })
      model.checkpoints.delete('c')
      await model.checkViews(`${size} ${direction}`)
      await model.checkFiles(`${size} ${direction}`)
    }
  })
})

describe('the trash', () => {
  test('holds what was dropped until it is emptied', async () => {
    const model = await uneven()
    const catalogue = await model.catalogue()
    await removeCheckpoint(catalogue, 'b', { direction: 'pull' })
    const trash = await listTrash(catalogue)
    expect(trash.map(({ path }) => path.replace(/.*-/, ''))).toEqual(['disk0.b.qcow2'])
    expect((await purgeTrash(catalogue, { dryRun: true })).length).toBe(1)
    expect((await listTrash(catalogue)).length).toBe(1)
    expect((await purgeTrash(catalogue)).length).toBe(1)
    expect(await listTrash(catalogue)).toEqual([])
    await removeCheckpoint(catalogue, 'c', { direction: 'push', purge: true })
    expect(await listTrash(catalogue)).toEqual([])
    model.checkpoints.delete('b')
    model.checkpoints.delete('c')
    await model.checkViews('purged')
    await model.checkFiles('purged')
  })
})

describe('converting', () => {
  test('a checkpoint becomes external and internal again, with its id and its children', async () => {
    const model = await stage(sceneOf('push in the middle of a line'))
    const before = (await model.nodes()).get('c')
    const convert = async (to: 'internal' | 'external') =>
      convertCheckpoint(await model.catalogue(), { checkpoint: 'c', to, verify: 'content' })
    expect((await convert('internal')).isDone).toBe(true)
    const internal = (await model.nodes()).get('c')
    expect([internal?.kind, internal?.id, internal?.parent]).toEqual([
      'internal',
      before?.id,
      before?.parent,
    ])
    await model.checkViews('internal')
    await model.checkFiles('internal')
    expect((await convert('internal')).isDone).toBe(false)
    await convert('external')
    const external = (await model.nodes()).get('c')
    expect([external?.kind, external?.id, external?.parent]).toEqual([
      'external',
      before?.id,
      before?.parent,
    ])
    await model.checkViews('external')
    await model.checkFiles('external')
  })

  test('a layer with two overlays cannot become a snapshot', async () => {
    const model = await stage(sceneOf('keep below two overlays'))
    const conversion = convertCheckpoint(await model.catalogue(), {
      checkpoint: 'b',
      to: 'internal',
    })
    expect(await codeOf(conversion)).toBe('CONVERT_IMPOSSIBLE')
    await model.checkViews('refused')
  })
})

describe('many cycles', () => {
  const cycles = Number(process.env.COWPOINT_CYCLES ?? 100)
  test.each(['internal', 'external'] as const)(
    '%s checkpoints that come and go leave the files as large as they were',
    async (kind) => {
      const model = await CheckpointModel.create([{ size: SIZE, clusterSize: 4096 }])
      await model.write(0, 0, new Uint8Array(SIZE).fill(1))
      let largest = 0
      for (let cycle = 0; cycle < cycles; cycle++) {
        const catalogue = await model.catalogue()
        await createCheckpoint(catalogue, { name: 'now', kind })
        await model.write(0, (cycle * 5003) % (SIZE - 6000), new Uint8Array(6000).fill(cycle))
        if (cycle % 7 === 3) await revertTo(catalogue, { checkpoint: 'now', discard: true })
        if (cycle % 7 === 3) model.current = [await contentOf(model)]
        await removeCheckpoint(catalogue, 'now', { purge: true })
        const { size } = await model.files.stat(model.images[0] as string)
        if (cycle === Math.min(20, cycles / 3)) largest = size
        if (largest > 0) expect(size).toBeLessThanOrEqual(largest + 16 * 4096)
      }
      await model.checkViews('at the end')
      await model.checkFiles('at the end')
      expect(model.files.usedBlocks).toBeLessThan((3 * SIZE) / BLOCK)
    },
  )
})

async function contentOf(model: CheckpointModel): Promise<Uint8Array> {
  await using chain = await openActive(model.files, model.images[0] as string, false)
  const bytes = new Uint8Array(chain.device.size)
  await chain.device.read(0, bytes)
  return bytes
}
