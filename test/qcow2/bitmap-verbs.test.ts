/** The verbs of bitmaps: each list of changes does what its parts say, or nothing; the bits are those that qemu shows. */

import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BitmapChange,
  type CreateOptions,
  checkImage,
  createQcow2,
  Qcow2Image,
} from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { expectClean, KIB, MIB, makeImage, type Ranges, rangesByQemu } from './bitmap-steps.ts'

/** An open image in memory whose bytes outlive its close. */
async function made(
  wish: CreateOptions = { size: 4 * MIB },
): Promise<{ image: Qcow2Image; device: MemoryDevice }> {
  const device = MemoryDevice.from(new Uint8Array(0), { growable: true })
  await createQcow2(device, wish)
  return { image: await opened(device), device }
}

function opened(device: MemoryDevice, writable = true): Promise<Qcow2Image> {
  return Qcow2Image.open(kept(device), { writable })
}

/** The device, without its end: closing the image leaves it open. */
function kept(device: MemoryDevice): MemoryDevice {
  return new Proxy(device, {
    get(target, key) {
      if (key === 'close') return async () => {}
      const value = Reflect.get(target, key, target) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

async function dirty(image: Qcow2Image, name: string): Promise<Ranges> {
  const list: Ranges = []
  await image.readBitmap(name, (ranges) => {
    for (const { offset, length } of ranges) {
      const last = list.at(-1)
      if (last !== undefined && last.offset + last.length === offset) last.length += length
      else list.push({ offset, length })
    }
  })
  return list
}

async function expectSound(device: MemoryDevice): Promise<void> {
  const { corruptions, leaks, checkErrors } = await checkImage(device)
  expect({ corruptions, leaks, checkErrors }).toEqual({ corruptions: 0, leaks: 0, checkErrors: 0 })
}

const add = (name: string, granularity = 4096): BitmapChange => ({
  action: 'add',
  name,
  granularity,
})

describeWithQemu('a merge', () => {
  it.each([
    { clusterSize: 65536, from: 512, to: 65536 },
    { clusterSize: 65536, from: 65536, to: 512 },
    { clusterSize: 512, from: 1024, to: 512 },
    { clusterSize: 512, from: 512, to: 2 * MIB },
    { clusterSize: 4096, from: 2 * MIB, to: 8192 },
  ])('sets the bits that qemu sets: $clusterSize, $from to $to', async (wish) => {
    const { clusterSize, from, to } = wish
    const path = await makeImage({
      size: 20 * MIB + 512,
      clusterSize,
      bitmaps: [
        { name: 'from', granularity: from },
        { name: 'to', granularity: to },
      ],
    })
    await qemuIoOk(path, ['write 0 1k', 'write 3M 64k', `write ${20 * MIB} 512`])
    await qemuImgOk(['bitmap', '--disable', path, 'from'])
    await qemuIoOk(path, ['write 8M 3M'])
    await qemuImgOk(['bitmap', '--disable', '--clear', path, 'to'])
    await qemuImgOk(['bitmap', '--enable', path, 'to'])
    await qemuIoOk(path, ['write 7M 2M', 'write 13M 100k'])
    const other = join(tempFolder(), 'ours.qcow2')
    copyFileSync(path, other)
    await qemuImgOk(['bitmap', '--merge', 'from', path, 'to'])
    const file = await FileDevice.open(nodeFiles, other, { writable: true, growable: true })
    const image = await Qcow2Image.open(file, { writable: true })
    await image.changeBitmaps([{ action: 'merge', name: 'to', source: 'from' }])
    const ours = await dirty(image, 'to')
    await image.close()
    await expectClean(other)
    const theirs = await rangesByQemu(path, 'to')
    expect(await rangesByQemu(other, 'to')).toEqual(theirs)
    expect(ours).toEqual(theirs)
    expect(await rangesByQemu(other, 'from')).toEqual(await rangesByQemu(path, 'from'))
  })

  it('takes the bits of another image', async () => {
    const source = await made()
    await source.image.changeBitmaps([add('theirs', 512)])
    await source.image.write(MIB + 700, new Uint8Array(600))
    const { image, device } = await made()
    await image.changeBitmaps([
      add('ours', 64 * KIB),
      { action: 'merge', name: 'ours', source: 'theirs', from: source.image },
    ])
    await image.close()
    const path = join(tempFolder(), 'disk.qcow2')
    writeFileSync(path, device.toBytes())
    await expectClean(path)
    expect(await rangesByQemu(path, 'ours')).toEqual([{ offset: MIB, length: 64 * KIB }])
  })
})

describe('a session under way', () => {
  it('is stored before bitmaps change, and goes on after it', async () => {
    const { image, device } = await made()
    await image.changeBitmaps([add('old')])
    await image.write(0, new Uint8Array(4096))
    await image.changeBitmaps([add('new'), { action: 'merge', name: 'new', source: 'old' }])
    expect(await dirty(image, 'new')).toEqual([{ offset: 0, length: 4096 }])
    await image.write(MIB, new Uint8Array(1))
    const both = [
      { offset: 0, length: 4096 },
      { offset: MIB, length: 4096 },
    ]
    expect(await dirty(image, 'new')).toEqual(both)
    await image.changeBitmaps([
      { action: 'disable', name: 'old' },
      { action: 'clear', name: 'new' },
    ])
    await image.write(2 * MIB, new Uint8Array(1))
    await image.close()
    await expectSound(device)
    const again = await opened(device, false)
    expect(await dirty(again, 'old')).toEqual(both)
    expect(await dirty(again, 'new')).toEqual([{ offset: 2 * MIB, length: 4096 }])
    expect((await again.bitmaps()).map(({ inUse }) => inUse)).toEqual([false, false])
  })

  it('misses no write that waits for the change', async () => {
    const { image, device } = await made()
    await image.changeBitmaps([add('all')])
    const work: Promise<unknown>[] = []
    for (let round = 0; round < 20; round++) {
      work.push(image.write(round * 8192, new Uint8Array(100)))
      if (round % 4 === 1) work.push(image.changeBitmaps([add(`b${round}`)]))
      if (round % 4 === 3) work.push(dirty(image, 'all'))
    }
    await Promise.all(work)
    await image.close()
    await expectSound(device)
    const expected = Array.from({ length: 20 }, (_, round) => ({
      offset: round * 8192,
      length: 4096,
    }))
    expect(await dirty(await opened(device, false), 'all')).toEqual(expected)
  })

  it('stores more clusters of bits than one refcount block counts', async () => {
    const { image, device } = await made({ size: 1024 * MIB, clusterSize: 512, refcountBits: 64 })
    await image.changeBitmaps([add('all', 512)])
    for (let at = 0; at < image.size; at += 2 * MIB) await image.write(at, new Uint8Array(1))
    await image.close()
    await expectSound(device)
    expect(await dirty(await opened(device, false), 'all')).toHaveLength(512)
  })

  it('goes on after a change that is refused', async () => {
    const { image } = await made()
    await image.changeBitmaps([add('all')])
    await image.write(0, new Uint8Array(1))
    await expect(
      image.changeBitmaps([add('new'), { action: 'clear', name: 'none' }]),
    ).rejects.toMatchObject({ code: 'BITMAP_NOT_FOUND', context: { action: 'clear' } })
    await image.write(MIB, new Uint8Array(1))
    expect((await dirty(image, 'all')).map(({ offset }) => offset)).toEqual([0, MIB])
    expect(await image.bitmaps()).toHaveLength(1)
  })
})

describe('what cannot be is refused, and changes nothing', () => {
  const refused: [string, string, readonly BitmapChange[]][] = [
    ['an empty name', 'BITMAP_NAME', [add('')]],
    ['a name of 1024 bytes', 'BITMAP_NAME', [add('ü'.repeat(512))]],
    ['a name that is taken', 'BITMAP_EXISTS', [add('there')]],
    ['an odd granularity', 'BITMAP_GRANULARITY', [add('new', 1536)]],
    ['a large granularity', 'BITMAP_GRANULARITY', [add('new', 2 ** 32)]],
    ['what is not there', 'BITMAP_NOT_FOUND', [{ action: 'remove', name: 'none' }]],
    ['a missing source', 'BITMAP_NOT_FOUND', [{ action: 'merge', name: 'there', source: 'none' }]],
  ]
  it.each(refused)('%s', async (_what, code, changes) => {
    const { image, device } = await made()
    await image.changeBitmaps([add('there')])
    const before = Buffer.from(device.toBytes())
    await expect(image.changeBitmaps([add('first'), ...changes])).rejects.toMatchObject({ code })
    expect(before.equals(device.toBytes())).toBe(true)
  })

  it('a bitmap in a version 2 image, on an empty disk, of too many bits', async () => {
    const old = await made({ size: MIB, version: 2 })
    const none = await made({ size: 0 })
    const large = await made({ size: 4 * 1024 ** 4, clusterSize: 2 * MIB })
    const codes = [old, none, large].map(({ image }) =>
      image.changeBitmaps([add('b', 512)]).catch(({ code }: { code: string }) => code),
    )
    expect(await Promise.all(codes)).toEqual([
      'BITMAPS_NOT_SUPPORTED',
      'BITMAP_SIZE',
      'BITMAP_SIZE',
    ])
  })

  it('a source for a disk of another size', async () => {
    const { image } = await made()
    const other = await made({ size: 5 * MIB })
    await image.changeBitmaps([add('b')])
    await other.image.changeBitmaps([add('b')])
    const merge = { action: 'merge', name: 'b', source: 'b', from: other.image } as const
    await expect(image.changeBitmaps([merge])).rejects.toMatchObject({
      code: 'BITMAP_SIZES_DIFFER',
    })
  })

  it('work that is aborted', async () => {
    const { image, device } = await made()
    await image.changeBitmaps([add('a'), add('b')])
    const before = Buffer.from(device.toBytes())
    const signal = AbortSignal.abort(new Error('enough'))
    const merge = { action: 'merge', name: 'b', source: 'a' } as const
    await expect(image.changeBitmaps([merge], { signal })).rejects.toThrow('enough')
    expect(before.equals(device.toBytes())).toBe(true)
  })
})

describe('the header', () => {
  it('is without extension and autoclear bit once the last bitmap has gone', async () => {
    const { image, device } = await made()
    const { extensions, autoclearFeatures } = image.header
    await image.changeBitmaps([add('a'), add('b')])
    expect(image.header.autoclearFeatures).toBe(autoclearFeatures | 1n)
    await image.changeBitmaps([{ action: 'remove', name: 'a' }])
    expect(image.header.extensions).toHaveLength(extensions.length + 1)
    await image.changeBitmaps([{ action: 'remove', name: 'b' }])
    const types = (list: typeof extensions) => list.map(({ type }) => type)
    expect(types(image.header.extensions)).toEqual(types(extensions))
    expect(image.header.autoclearFeatures).toBe(autoclearFeatures)
    await image.close()
    await expectSound(device)
  })

  it('has room for bitmaps beside a long backing name', async () => {
    const name = `${'d/'.repeat(200)}base.qcow2`
    const { image, device } = await made({
      size: MIB,
      clusterSize: 4096,
      backing: { name, format: 'qcow2' },
    })
    await image.changeBitmaps([add('a')])
    await image.close()
    await expectSound(device)
    const again = await opened(device, false)
    expect(again.backingReference?.name).toBe(name)
    expect(await again.bitmaps()).toHaveLength(1)
  })

  it('is not written where nothing changes', async () => {
    const { image, device } = await made()
    await image.changeBitmaps([add('a')])
    const before = Buffer.from(device.toBytes())
    await image.changeBitmaps([
      { action: 'enable', name: 'a' },
      { action: 'merge', name: 'a', source: 'a' },
      add('b'),
      { action: 'remove', name: 'b' },
    ])
    expect(before.equals(device.toBytes())).toBe(true)
  })
})

const NAMES = ['a', 'b', 'c']
const SIZE = 300 * KIB

/** One step of a random life: a change, or a guest write. */
type Step =
  | BitmapChange
  | { readonly action: 'write'; readonly at: number; readonly length: number }

const steps = fc.array(
  fc.oneof(
    fc.record({
      action: fc.constant('add' as const),
      name: fc.constantFrom(...NAMES),
      granularity: fc.constantFrom(512, 4096, 65536),
      enabled: fc.boolean(),
    }),
    fc.record({
      action: fc.constantFrom('remove', 'clear', 'enable', 'disable'),
      name: fc.constantFrom(...NAMES),
    }),
    fc.record({
      action: fc.constant('merge' as const),
      name: fc.constantFrom(...NAMES),
      source: fc.constantFrom(...NAMES),
    }),
    fc.record({
      action: fc.constant('write' as const),
      at: fc.integer({ min: 0, max: SIZE - 1 }),
      length: fc.integer({ min: 1, max: 40 * KIB }),
    }),
  ),
  { maxLength: 30 },
) as fc.Arbitrary<Step[]>

interface Model {
  granularity: number
  enabled: boolean
  blocks: Set<number>
}

function mark({ blocks, granularity }: Model, at: number, length: number): void {
  const end = Math.min(at + length, SIZE)
  for (let block = Math.floor(at / granularity); block * granularity < end; block++) {
    blocks.add(block)
  }
}

/** Does a step to the model; false where it is refused. */
function apply(model: Map<string, Model>, step: Step): boolean {
  if (step.action === 'write') {
    for (const one of model.values()) if (one.enabled) mark(one, step.at, step.length)
    return true
  }
  const one = model.get(step.name)
  if (step.action === 'add') {
    if (one !== undefined) return false
    const { granularity = 0, enabled = true } = step
    model.set(step.name, { granularity, enabled, blocks: new Set() })
    return true
  }
  if (one === undefined) return false
  if (step.action === 'remove') model.delete(step.name)
  else if (step.action === 'clear') one.blocks.clear()
  else if (step.action === 'merge') {
    const source = model.get(step.source)
    if (source === undefined) return false
    const { granularity } = source
    for (const block of [...source.blocks]) {
      const at = block * granularity
      mark(one, at, Math.min(granularity, SIZE - at))
    }
  } else one.enabled = step.action === 'enable'
  return true
}

describe('any life of bitmaps', () => {
  it.each([512, 4096])('ends as its model, on %i byte clusters', async (clusterSize) => {
    await fc.assert(
      fc.asyncProperty(steps, async (list) => {
        const { image, device } = await made({ size: SIZE, clusterSize })
        const model = new Map<string, Model>()
        for (const step of list) {
          const done = apply(model, step)
          if (step.action === 'write') {
            const length = Math.min(step.length, SIZE - step.at)
            await image.write(step.at, new Uint8Array(length).fill(1))
            continue
          }
          const work = image.changeBitmaps([step])
          if (done) await work
          else await expect(work).rejects.toMatchObject({ code: expect.stringMatching(/^BITMAP_/) })
        }
        await image.close()
        await expectSound(device)
        const again = await opened(device, false)
        expect((await again.bitmaps()).map(({ name, auto }) => [name, auto])).toEqual(
          [...model].map(([name, { enabled }]) => [name, enabled]),
        )
        for (const [name, { blocks, granularity }] of model) {
          const found: number[] = []
          await again.readBitmap(name, (ranges) => {
            for (const { offset, length } of ranges) {
              for (let at = offset; at < offset + length; at += granularity) {
                found.push(at / granularity)
              }
            }
          })
          expect(found).toEqual([...blocks].sort((a, b) => a - b))
        }
      }),
      { numRuns: 60 },
    )
  })
})
