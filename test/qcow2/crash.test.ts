/**
 * Power cuts: after each legal state of the file, structural verbs show the image as before or as after, with
 * no error and no leak; guest writes show every sector old or new, with what was flushed in place.
 */

import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles, type CrashState, crashStates } from '../support/crash-files.ts'

const PATH = '/disk.qcow2'

interface Geometry {
  readonly name: string
  readonly clusterSize: number
  readonly refcountBits?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
}

const GEOMETRIES: readonly Geometry[] = [
  { name: '512 B clusters', clusterSize: 512 },
  { name: '4 KiB clusters, 8-bit refcounts', clusterSize: 4096, refcountBits: 8 },
  { name: '64 KiB clusters', clusterSize: 65536 },
  { name: 'extended L2', clusterSize: 16384, extendedL2: true },
  { name: 'version 2', clusterSize: 4096, version: 2 },
]

const SIZE = 256 * 1024

async function open(files: CrashFiles, writable = true): Promise<Qcow2Image> {
  return Qcow2Image.open(await FileDevice.open(files, PATH, { writable, growable: writable }), {
    writable,
  })
}

/** A small disk with data, a snapshot, a compressed cluster and writes after the snapshot. */
async function prepare(geometry: Geometry): Promise<CrashFiles> {
  const files = new CrashFiles()
  const device = await FileDevice.open(files, PATH, { create: 'new', growable: true })
  await createQcow2(device, { size: SIZE, ...geometry })
  await device.close()
  const image = await open(files)
  await image.write(0, new Uint8Array(20_000).fill(1))
  await image.write(100_000, new Uint8Array(30_000).fill(2))
  await image.createSnapshot({ name: 'first' })
  await image.write(8_000, new Uint8Array(9_000).fill(3))
  const cluster = image.geometry.clusterSize
  await image.writeCompressed(2 * cluster, new Uint8Array(cluster).fill(4))
  await image.writeZeroes(110_000, 8_000)
  await image.close()
  return files
}

/** All views of an image: the active disk and every snapshot, by name. */
async function views(image: Qcow2Image): Promise<Record<string, string>> {
  const content = async (device: {
    size: number
    read(at: number, to: Uint8Array): Promise<void>
  }) => {
    const bytes = new Uint8Array(device.size)
    await device.read(0, bytes)
    return `${bytes.length}:${Buffer.from(bytes).toString('base64')}`
  }
  const all: Record<string, string> = { active: await content(image) }
  for (const snapshot of image.snapshots) {
    all[`snapshot ${snapshot.id} ${snapshot.name}`] = await content(
      await image.openSnapshot(snapshot),
    )
  }
  return all
}

/** The views in a state, after checking that it is a sound image. */
async function soundViews(state: CrashState, leaks: 'none' | 'allowed'): Promise<string> {
  const files = new CrashFiles(state.files)
  const report = await checkImage(await FileDevice.open(files, PATH))
  const verdict = { corruptions: report.corruptions, errors: report.checkErrors }
  expect(verdict, state.key).toEqual({ corruptions: 0, errors: 0 })
  if (leaks === 'none') expect(report.leaks, state.key).toBe(0)
  const image = await open(files, false)
  const found = JSON.stringify(await views(image))
  await image.close()
  return found
}

const VERBS: Record<string, (image: Qcow2Image) => Promise<unknown>> = {
  'snapshot create': (image) => image.createSnapshot({ name: 'second', date: new Date(0) }),
  'snapshot apply': (image) => image.applySnapshot(image.snapshots[0]!),
  'snapshot delete': (image) => image.deleteSnapshot(image.snapshots[0]!),
}

describe.each(GEOMETRIES)('on $name', (geometry) => {
  test.each(Object.keys(VERBS))(
    '%s leaves the old or the new image in every power cut',
    async (verb) => {
      const files = await prepare(geometry)
      const image = await open(files)
      const start = files.startRecording()
      const before = JSON.stringify(await views(image))
      await VERBS[verb]!(image)
      const after = JSON.stringify(await views(image))
      const log = files.log
      expect(after).not.toBe(before)
      let count = 0
      for (const state of crashStates(start, log)) {
        expect([before, after], state.key).toContain(await soundViews(state, 'none'))
        count++
      }
      expect(count).toBeGreaterThan(8)
      const [last] = [...crashStates(start, log)].slice(-1)
      expect(await soundViews(last!, 'none')).toBe(after)
    },
  )

  test('growing shows the old or the new size in every power cut', async () => {
    if (geometry.version === 2) return growsWithoutSnapshots(geometry)
    const files = await prepare(geometry)
    await growth(files)
  })

  test('guest writes keep what was flushed and never show foreign bytes', async () => {
    const files = await prepare(geometry)
    const image = await open(files)
    const start = files.startRecording()
    const old = new Uint8Array(SIZE)
    await image.read(0, old)
    await image.write(4_000, new Uint8Array(5_000).fill(9))
    await image.discard(98_304, 32_768)
    await image.flush()
    const flushedAt = files.log.length
    const flushed = new Uint8Array(SIZE)
    await image.read(0, flushed)
    await image.write(200_000, new Uint8Array(40_000).fill(10))
    await image.write(4_500, new Uint8Array(500).fill(11))
    await image.close()
    const final = new Uint8Array(SIZE)
    const reopened = await open(files, false)
    await reopened.read(0, final)
    const firstWrite = old.slice().fill(9, 4_000, 9_000)
    const allowed = [old, firstWrite, flushed, final]
    for (const state of crashStates(start, files.log)) {
      await soundViews(state, 'allowed')
      const crashed = await open(new CrashFiles(state.files), false)
      const bytes = new Uint8Array(SIZE)
      await crashed.read(0, bytes)
      const isFlushed = Number(state.key.split('/')[0]) >= flushedAt
      const choices = isFlushed ? [flushed, final] : allowed
      for (let at = 0; at < SIZE; at += 1) {
        if (!choices.some((choice) => choice[at] === bytes[at])) {
          expect.fail(`byte ${at} of state ${state.key} is ${bytes[at]}`)
        }
      }
    }
  })
})

async function growth(files: CrashFiles): Promise<void> {
  const image = await open(files)
  const start = files.startRecording()
  const before = JSON.stringify(await views(image))
  await image.resize(SIZE * 600)
  expect(image.size).toBe(SIZE * 600)
  for (const state of crashStates(start, files.log)) {
    const crashed = new CrashFiles(state.files)
    const report = await checkImage(await FileDevice.open(crashed, PATH))
    expect([report.corruptions, report.checkErrors, report.leaks], state.key).toEqual([0, 0, 0])
    const opened = await open(crashed, false)
    expect([SIZE, SIZE * 600], state.key).toContain(opened.size)
    const bytes = new Uint8Array(SIZE)
    await opened.read(0, bytes)
    const active = JSON.parse(before).active as string
    expect(`${SIZE}:${Buffer.from(bytes).toString('base64')}` === active, state.key).toBe(true)
    await opened.close()
  }
}

async function growsWithoutSnapshots(geometry: Geometry): Promise<void> {
  const files = await prepare(geometry)
  const image = await open(files)
  await image.deleteSnapshot(image.snapshots[0]!)
  await image.close()
  await growth(files)
}
