/** Power cuts while bitmaps change: each state of the file has the old bitmaps or the new ones, with no error and no leak. */

import { describe, expect, test } from 'vitest'
import { type BitmapChange, checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles, type CrashState, crashStates } from '../support/crash-files.ts'

const PATH = '/disk.qcow2'
const SIZE = 256 * 1024

async function open(files: CrashFiles, writable = true): Promise<Qcow2Image> {
  return Qcow2Image.open(await FileDevice.open(files, PATH, { writable, growable: writable }), {
    writable,
  })
}

/** A disk with data and bitmaps `a`, which is enabled, and `b`, which is not. */
async function prepare(clusterSize: number, bitmaps: 'some' | 'none'): Promise<CrashFiles> {
  const files = new CrashFiles()
  const device = await FileDevice.open(files, PATH, { create: 'new', growable: true })
  await createQcow2(device, { size: SIZE, clusterSize })
  await device.close()
  const image = await open(files)
  if (bitmaps === 'some') {
    await image.changeBitmaps([
      { action: 'add', name: 'a', granularity: 512 },
      { action: 'add', name: 'b', granularity: 1024 },
    ])
  }
  await image.write(5000, new Uint8Array(20_000).fill(1))
  if (bitmaps === 'some') await image.changeBitmaps([{ action: 'disable', name: 'b' }])
  await image.write(200_000, new Uint8Array(3000).fill(2))
  await image.close()
  return files
}

/** The bitmaps and the disk, as one text. */
async function shown(image: Qcow2Image): Promise<string> {
  const bytes = new Uint8Array(SIZE)
  await image.read(0, bytes)
  const bitmaps: unknown[] = []
  for (const { name, auto, inUse, granularityBits } of await image.bitmaps()) {
    const dirty: unknown[] = []
    if (!inUse) await image.readBitmap(name, (ranges) => void dirty.push(...ranges))
    bitmaps.push({ name, auto, inUse, granularityBits, dirty })
  }
  const sum = bytes.reduce((total, byte, at) => (total + byte * (at + 1)) % 2 ** 32, 0)
  return JSON.stringify({ bitmaps, sum })
}

async function soundState(state: CrashState): Promise<string> {
  const files = new CrashFiles(state.files)
  const { corruptions, checkErrors, leaks } = await checkImage(await FileDevice.open(files, PATH))
  expect({ corruptions, checkErrors, leaks }, state.key).toEqual({
    corruptions: 0,
    checkErrors: 0,
    leaks: 0,
  })
  const image = await open(files, false)
  const found = await shown(image)
  await image.close()
  return found
}

const CASES: [string, 'some' | 'none', readonly BitmapChange[]][] = [
  ['the first bitmap', 'none', [{ action: 'add', name: 'new' }]],
  ['one bitmap more', 'some', [{ action: 'add', name: 'new', granularity: 2048 }]],
  ['one bitmap less', 'some', [{ action: 'remove', name: 'a' }]],
  [
    'the last one gone',
    'some',
    [
      { action: 'remove', name: 'a' },
      { action: 'remove', name: 'b' },
    ],
  ],
  ['a clear', 'some', [{ action: 'clear', name: 'a' }]],
  ['other flags', 'some', [{ action: 'enable', name: 'b' }]],
  ['a merge', 'some', [{ action: 'merge', name: 'b', source: 'a' }]],
  [
    'many actions',
    'some',
    [
      { action: 'add', name: 'all', granularity: 4096 },
      { action: 'merge', name: 'all', source: 'a' },
      { action: 'clear', name: 'a' },
      { action: 'merge', name: 'a', source: 'b' },
      { action: 'remove', name: 'b' },
      { action: 'disable', name: 'all' },
    ],
  ],
]

describe.each([512, 4096])('on clusters of %i bytes', (clusterSize) => {
  test.each(CASES)('%s: the old or the new bitmaps', async (_name, bitmaps, changes) => {
    const files = await prepare(clusterSize, bitmaps)
    const image = await open(files)
    const start = files.startRecording()
    const before = await shown(image)
    await image.changeBitmaps(changes)
    const after = await shown(image)
    expect(after).not.toBe(before)
    let count = 0
    let last = ''
    for (const state of crashStates(start, files.log)) {
      last = await soundState(state)
      expect([before, after], state.key).toContain(last)
      count++
    }
    expect(count).toBeGreaterThan(8)
    expect(last).toBe(after)
  })
})
