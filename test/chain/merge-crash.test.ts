/**
 * Power cuts while layers are merged: in each state the overlay reads the same; a qcow2 base reads as before or as after, without
 * an error or a leak, its snapshots unchanged; and doing it again ends as if nothing had happened.
 */

import { describe, expect, test } from 'vitest'
import { commitLayer, openChain, rebaseLayer, streamLayer } from '../../src/chain/index.ts'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles, crashStates } from '../support/crash-files.ts'

const BASE = '/base.qcow2'
const OTHER = '/other.qcow2'
const TOP = '/top.qcow2'
const RAW = '/base.raw'
const SIZE = 96 * 1024

interface Setting {
  readonly title: string
  readonly base?: { clusterSize?: number; extendedL2?: boolean; version?: 2 | 3 }
  readonly top?: { clusterSize?: number; extendedL2?: boolean; version?: 2 | 3 }
  readonly topSize?: number
  readonly isRaw?: boolean
  readonly snapshot?: boolean
}

const SETTINGS: readonly Setting[] = [
  { title: '64 KiB on 4 KiB', base: { clusterSize: 4096 } },
  { title: '4 KiB on 4 KiB with a snapshot', ...same(4096), snapshot: true },
  { title: '512 B on 1 KiB', base: { clusterSize: 1024 }, top: { clusterSize: 512 } },
  { title: 'a larger overlay', ...same(4096), topSize: SIZE * 30 },
  {
    title: 'a larger overlay of smaller clusters',
    base: { clusterSize: 4096 },
    top: { clusterSize: 512 },
    topSize: SIZE * 30,
  },
  { title: 'a smaller overlay', ...same(4096), topSize: 50 * 1024 },
  { title: 'extended L2', base: { clusterSize: 16384, extendedL2: true } },
  { title: 'version 2', base: { clusterSize: 4096, version: 2 }, top: { version: 2 } },
  { title: 'a raw base', isRaw: true, top: { clusterSize: 4096 } },
]

function same(clusterSize: number): Pick<Setting, 'base' | 'top'> {
  return { base: { clusterSize }, top: { clusterSize } }
}

/** A base with data, another one that differs, and an overlay with data, zeroes and a compressed cluster. */
async function prepare(setting: Setting): Promise<CrashFiles> {
  const files = new CrashFiles()
  const fill = async (path: string, byte: number, snapshot: boolean) => {
    await make(files, path, { size: SIZE, ...setting.base })
    const image = await open(files, path)
    await image.write(0, new Uint8Array(40_000).fill(byte))
    if (snapshot) await image.createSnapshot({ name: 'kept', date: new Date(0) })
    await image.write(70_000, new Uint8Array(9_000).fill(byte + 1))
    await image.close()
  }
  await fill(BASE, 1, setting.snapshot ?? false)
  await fill(OTHER, 5, false)
  if (setting.isRaw === true) {
    const raw = await FileDevice.open(files, RAW, { create: 'new', growable: true })
    await raw.write(0, new Uint8Array(SIZE).fill(1))
    await raw.close()
  }
  const backing =
    setting.isRaw === true ? { name: RAW, format: 'raw' } : { name: BASE, format: 'qcow2' }
  await make(files, TOP, { size: setting.topSize ?? SIZE, ...setting.top, backing })
  await using chain = await openChain(TOP, { files, writable: true })
  const image = chain.active.image!
  await image.write(20_000, new Uint8Array(3_000).fill(3))
  await image.writeZeroes(32_768, 8_192)
  const { clusterSize } = image.geometry
  const length = Math.min(clusterSize, image.size)
  await image.writeCompressed(0, new Uint8Array(length).fill(4))
  if (image.size > SIZE) await image.write(SIZE * 20, new Uint8Array(100).fill(6))
  return files
}

async function make(
  files: CrashFiles,
  path: string,
  options: Parameters<typeof createQcow2>[1],
): Promise<void> {
  const device = await FileDevice.open(files, path, { create: 'new', growable: true })
  await createQcow2(device, options)
  await device.close()
}

async function open(files: CrashFiles, path: string): Promise<Qcow2Image> {
  const device = await FileDevice.open(files, path, { writable: true, growable: true })
  return Qcow2Image.open(device, { writable: true })
}

async function viewOf(files: CrashFiles, path: string): Promise<string> {
  await using chain = await openChain(path, { files, format: path === RAW ? 'raw' : 'qcow2' })
  const bytes = new Uint8Array(chain.device.size)
  await chain.device.read(0, bytes)
  return Buffer.from(bytes).toString('latin1')
}

async function snapshotsOf(files: CrashFiles, path: string): Promise<readonly string[]> {
  await using chain = await openChain(path, { files, format: path === RAW ? 'raw' : 'qcow2' })
  const found: string[] = []
  for (const snapshot of chain.active.image?.snapshots ?? []) {
    const view = await chain.active.image!.openSnapshot(snapshot)
    const bytes = new Uint8Array(view.size)
    await view.read(0, bytes)
    found.push(Buffer.from(bytes).toString('latin1'))
  }
  return found
}

async function soundness(files: CrashFiles, path: string): Promise<readonly number[]> {
  const { corruptions, checkErrors, leaks } = await checkImage(await FileDevice.open(files, path))
  return [corruptions, checkErrors, leaks]
}

describe.each(SETTINGS)('commit: $title', (setting) => {
  test('the overlay never changes and the base changes at once', async () => {
    const files = await prepare(setting)
    const base = setting.isRaw === true ? RAW : BASE
    const top = await viewOf(files, TOP)
    const before = await viewOf(files, base)
    const snapshots = await snapshotsOf(files, base)
    const start = files.startRecording()
    await commitLayer(TOP, { files, unsafe: true })
    const after = await viewOf(files, base)
    expect(after.slice(0, top.length) === top).toBe(true)
    expect(after.slice(top.length) === before.slice(top.length)).toBe(true)
    let count = 0
    for (const { key, files: left } of crashStates(start, files.log)) {
      const crashed = new CrashFiles(left)
      expect((await viewOf(crashed, TOP)) === top, `overlay at ${key}`).toBe(true)
      expect(await soundness(crashed, TOP), key).toEqual([0, 0, 0])
      if (setting.isRaw !== true) {
        const view = await viewOf(crashed, base)
        expect(view === before || view === after, `base at ${key}`).toBe(true)
        expect(await soundness(crashed, base), key).toEqual([0, 0, 0])
        expect(await snapshotsOf(crashed, base)).toEqual(snapshots)
      }
      if (count++ % 16 === 0) {
        await commitLayer(TOP, { files: crashed, unsafe: true })
        expect((await viewOf(crashed, base)) === after, `again at ${key}`).toBe(true)
        expect((await viewOf(crashed, TOP)) === top).toBe(true)
      }
    }
    expect(count).toBeGreaterThan(10)
  })
})

const REBASES = SETTINGS.filter(({ snapshot }) => snapshot !== true)

describe.each(REBASES)('rebase and stream: $title', (setting) => {
  const verbs = {
    'rebase to another base': (files: CrashFiles) =>
      rebaseLayer(TOP, { name: OTHER, format: 'qcow2' }, { files }),
    'rebase to none': (files: CrashFiles) => rebaseLayer(TOP, undefined, { files }),
    stream: (files: CrashFiles) => streamLayer(TOP, { files }),
  }
  test.each(Object.entries(verbs))(
    '%s never changes what the image reads',
    async (_title, verb) => {
      const files = await prepare(setting)
      const top = await viewOf(files, TOP)
      const start = files.startRecording()
      await verb(files)
      expect((await viewOf(files, TOP)) === top).toBe(true)
      let count = 0
      for (const { key, files: left } of crashStates(start, files.log)) {
        const crashed = new CrashFiles(left)
        expect((await viewOf(crashed, TOP)) === top, key).toBe(true)
        expect((await soundness(crashed, TOP)).slice(0, 2), key).toEqual([0, 0])
        if (count++ % 16 === 0) {
          await verb(crashed)
          expect((await viewOf(crashed, TOP)) === top, `again at ${key}`).toBe(true)
        }
      }
      expect(count).toBeGreaterThan(5)
      expect(await soundness(files, TOP)).toEqual([0, 0, 0])
    },
  )
})
