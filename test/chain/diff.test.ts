import { describe, expect, test } from 'vitest'
import { type ChangedExtent, type DiffView, diffViews, openChain } from '../../src/chain/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles } from '../support/crash-files.ts'
import { bytesOf, Dice, makeStacks, viewsIn } from './diff-stacks.ts'

async function changes(
  a: DiffView,
  b: DiffView,
  options: Parameters<typeof diffViews>[2] = {},
): Promise<ChangedExtent[]> {
  const list: ChangedExtent[] = []
  for await (const part of diffViews(a, b, options)) list.push(...part)
  return list
}

/** One byte for each byte of the larger view: whether it was told as changed. */
function marked(extents: readonly ChangedExtent[], size: number): Uint8Array {
  const marks = new Uint8Array(size)
  let at = 0
  for (const { offset, length } of extents) {
    expect(offset).toBeGreaterThanOrEqual(at)
    expect(length).toBeGreaterThan(0)
    at = offset + length
    marks.fill(1, offset, at)
  }
  expect(at).toBeLessThanOrEqual(size)
  return marks
}

function truth(a: Uint8Array, b: Uint8Array): Uint8Array {
  const real = new Uint8Array(Math.max(a.length, b.length))
  for (let at = 0; at < real.length; at++) real[at] = a[at] === b[at] ? 0 : 1
  return real
}

/** In how many bytes marks are missing, and what they say too much. */
function errors(marks: Uint8Array, real: Uint8Array): { missed: number; extra: number } {
  let [missed, extra] = [0, 0]
  for (let at = 0; at < real.length; at++) {
    if (real[at] === 1 && marks[at] === 0) missed++
    if (real[at] === 0 && marks[at] === 1) extra++
  }
  return { missed, extra }
}

async function compareSome(a: DiffView, b: DiffView, about: string): Promise<number> {
  const [bytesA, bytesB] = [await bytesOf(a), await bytesOf(b)]
  const real = truth(bytesA, bytesB)
  const byTables = await changes(a, b)
  const { missed, extra } = errors(marked(byTables, real.length), real)
  expect(missed, about).toBe(0)
  for (const { offset, length, kind } of byTables) {
    if (kind !== 'zero') continue
    expect(bytesB.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true)
  }
  const exact = await changes(a, b, { content: true })
  expect(errors(marked(exact, real.length), real), about).toEqual({ missed: 0, extra: 0 })
  const inSectors = await changes(a, b, { content: true, granularity: 512 })
  expect(errors(marked(inSectors, real.length), real).missed, about).toBe(0)
  return extra
}

async function play(seed: number): Promise<void> {
  const dice = new Dice(seed)
  const files = new CrashFiles()
  const tops = await makeStacks(files, dice)
  const opened = []
  for (const top of tops) opened.push(await openChain(top, { files, format: 'qcow2' }))
  const views = opened.flatMap(viewsIn)
  for (let count = 0; count < 30; count++) {
    const a = dice.pick(views)
    // Often of one image, whose tables are then compared with each other.
    const kin = views.filter(({ chain, depth }) => chain === a.chain && depth === a.depth)
    const b = dice.pick(dice.roll(2) === 0 ? kin : views)
    await compareSome(a, b, `seed ${seed} pair ${count}`)
  }
  for (const view of views) expect(await changes(view, view), `seed ${seed}`).toEqual([])
  for (const chain of opened) await chain.close()
}

const ROUNDS = Number(process.env.DIFF_ROUNDS ?? 5)

test.each([0, 1, 2, 3])('no change is missed between any two views, group %i', async (group) => {
  for (let index = 0; index < ROUNDS; index++) await play(group * ROUNDS + index + 1)
})

/** An image of 4 KiB clusters in memory that is open for writing. */
async function makeImage(files: CrashFiles, path: string, size: number, below?: string) {
  const device = await FileDevice.open(files, path, { create: 'new', growable: true })
  const backing = below === undefined ? {} : { backing: { name: below, format: 'qcow2' } }
  await createQcow2(device, { size, clusterSize: 4096, ...backing })
  await device.close()
  return openChain(path, { files, format: 'qcow2', writable: true })
}

const SIZE = 8 * 1024 * 1024
const page = (value: number) => new Uint8Array(4096).fill(value)

describe('by tables alone', () => {
  test('exactly the clusters that were written between two snapshots are told', async () => {
    const files = new CrashFiles()
    await using chain = await makeImage(files, '/a', SIZE)
    const image = chain.active.image as Qcow2Image
    for (let at = 0; at < SIZE; at += 256 * 1024) await image.write(at, page(1))
    await image.writeCompressed(8192, page(9))
    const first = await image.createSnapshot({ name: 'first' })
    await image.write(256 * 1024, page(2))
    await image.writeZeroes(512 * 1024, 4096)
    await image.writeZeroes(12288, 4096)
    const second = await image.createSnapshot({ name: 'second' })
    const from = { chain, snapshot: first }
    const to = { chain, snapshot: second }
    const expected = [
      { offset: 256 * 1024, length: 4096, kind: 'data' },
      { offset: 512 * 1024, length: 4096, kind: 'zero' },
    ]
    expect(await changes(from, to)).toEqual(expected)
    // What was never written and what is zero by an entry is the same.
    expect(await changes(from, { chain })).toEqual(expected)
    expect(await changes({ chain }, to)).toEqual([])
  })

  test('tables that both snapshots share are not read', async () => {
    const files = new CrashFiles()
    let snapshots: readonly { name: string }[]
    {
      await using chain = await makeImage(files, '/a', 32 * 1024 * 1024)
      const image = chain.active.image as Qcow2Image
      // A table of 512 entries reaches 2 MiB.
      for (let at = 0; at < image.size; at += 2 * 1024 * 1024) await image.write(at, page(1))
      await image.createSnapshot({ name: 'first' })
      await image.write(6 * 1024 * 1024, page(2))
      await image.createSnapshot({ name: 'second' })
      snapshots = image.snapshots
    }
    const device = await FileDevice.open(files, '/a')
    const reads: number[] = []
    const original = device.readNow.bind(device)
    device.readNow = (offset, target) => {
      reads.push(offset)
      return original(offset, target)
    }
    const image = await Qcow2Image.open(device)
    const [a, b] = await Promise.all(image.snapshots.map((one) => image.openSnapshot(one)))
    reads.length = 0
    const { ranges, end } = await a!.changes(b, 0, image.size)
    expect(snapshots.map(({ name }) => name)).toEqual(['first', 'second'])
    expect({ ranges, end }).toEqual({
      ranges: [{ offset: 6 * 1024 * 1024, length: 4096 }],
      end: image.size,
    })
    expect(reads).toHaveLength(2)
    await image.close()
  })

  test('an overlay differs from its base only where it holds something', async () => {
    const files = new CrashFiles()
    {
      await using base = await makeImage(files, '/base', SIZE)
      for (let at = 0; at < SIZE; at += 65536) await base.device.write(at, page(1))
    }
    {
      await using over = await makeImage(files, '/over', SIZE, '/base')
      await over.device.write(65536, page(2))
      await over.device.writeZeroes(131072, 4096)
      // Zeroes over nothing change nothing.
      await over.device.writeZeroes(131072 + 4096, 4096)
    }
    {
      await using twin = await makeImage(files, '/twin', SIZE, '/base')
      await twin.device.write(65536 * 3, page(3))
    }
    await using over = await openChain('/over', { files })
    await using twin = await openChain('/twin', { files })
    expect(await changes({ chain: over, depth: 1 }, { chain: over })).toEqual([
      { offset: 65536, length: 4096, kind: 'data' },
      { offset: 131072, length: 4096, kind: 'zero' },
    ])
    // The base was opened twice, and is one file.
    expect(await changes({ chain: over }, { chain: twin })).toEqual([
      { offset: 65536, length: 4096, kind: 'data' },
      { offset: 131072, length: 4096, kind: 'data' },
      { offset: 65536 * 3, length: 4096, kind: 'data' },
    ])
  })

  test('of images of differing size the rest of the longer one counts as changed', async () => {
    const files = new CrashFiles()
    await using chain = await makeImage(files, '/a', SIZE)
    const image = chain.active.image as Qcow2Image
    const before = await image.createSnapshot({ name: 'before' })
    await image.resize(SIZE + 4096)
    const expected = [{ offset: SIZE, length: 4096, kind: 'size' }]
    expect(await changes({ chain, snapshot: before }, { chain })).toEqual(expected)
    expect(await changes({ chain }, { chain, snapshot: before }, { content: true })).toEqual(
      expected,
    )
  })

  test('what a missing base would hold counts as changed, and snapshots can be compared without it', async () => {
    const files = new CrashFiles()
    {
      await using base = await makeImage(files, '/base', SIZE)
      await base.device.write(0, page(1))
      await using over = await makeImage(files, '/over', SIZE, '/base')
      const image = over.active.image as Qcow2Image
      await image.createSnapshot({ name: 'first' })
      await image.writeZeroes(4096, 4096)
    }
    await files.unlink('/base')
    await using chain = await openChain('/over', { files, onBroken: 'report' })
    const snapshot = chain.active.image?.snapshots[0]
    expect(await changes({ chain, snapshot }, { chain })).toEqual([
      { offset: 4096, length: 4096, kind: 'zero' },
    ])
    await expect(changes({ chain, snapshot }, { chain }, { content: true })).rejects.toThrow()
  })

  test('a granularity that is no power of two is refused', async () => {
    const files = new CrashFiles()
    await using chain = await makeImage(files, '/a', SIZE)
    const asked = { content: true, granularity: 3000 }
    await expect(changes({ chain }, { chain }, asked)).rejects.toMatchObject({
      code: 'INVALID_GRANULARITY',
    })
  })
})
