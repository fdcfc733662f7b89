/** Power cuts during a whole compaction: every state is a sound image with all views as they were, and can be gone on with. */

import { describe, expect, test } from 'vitest'
import type { CreateOptions } from '../../src/qcow2/create.ts'
import { checkImage, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice } from '../../src/storage/index.ts'
import { CrashFiles, type CrashState, crashStates } from '../support/crash-files.ts'
import { viewDigests, wornImage } from '../support/worn-image.ts'

const PATH = '/disk.qcow2'

const SHAPES: Readonly<Record<string, Omit<CreateOptions, 'size'>>> = {
  '512 B clusters': { clusterSize: 512 },
  '4 KiB clusters, 8-bit refcounts': { clusterSize: 4096, refcountBits: 8 },
  'extended L2': { clusterSize: 16384, extendedL2: true },
  'version 2': { clusterSize: 4096, version: 2 },
}

async function open(files: CrashFiles): Promise<Qcow2Image> {
  const file = await FileDevice.open(files, PATH, { writable: true, growable: true })
  return Qcow2Image.open(file, { writable: true })
}

/** A small worn image, as bytes in a file. */
async function worn(options: Omit<CreateOptions, 'size'>): Promise<CrashFiles> {
  const file = new MemoryDevice(0, { growable: true })
  const wear = { seed: 11, compresses: true, snapshots: true, clusterCount: 40, stepCount: 40 }
  const image = await wornImage(file, options, wear)
  if (image.snapshots.length === 0) await image.createSnapshot({ name: 'one' })
  const bytes = file.toBytes()
  return new CrashFiles(new Map([[PATH, bytes]]))
}

async function soundViews(state: CrashState): Promise<string[]> {
  const files = new CrashFiles(state.files)
  const report = await checkImage(await FileDevice.open(files, PATH))
  const { corruptions, checkErrors, leaks } = report
  expect([corruptions, checkErrors, leaks], state.key).toEqual([0, 0, 0])
  const image = await Qcow2Image.open(await FileDevice.open(files, PATH))
  return viewDigests(image)
}

describe.each(Object.entries(SHAPES))('on %s', (_, options) => {
  test.each([false, true])(
    'a power cut while compacting (zeroes too: %s) changes no view and leaks nothing',
    async (zero) => {
      const files = await worn(options)
      const image = await open(files)
      const before = await viewDigests(image)
      const start = files.startRecording()
      const { oldFileSize, fileSize } = await image.compact({ zero })
      expect(fileSize).toBeLessThan(oldFileSize)
      const log = [...files.log]
      let count = 0
      let last: CrashState | undefined
      for (const state of crashStates(start, log)) {
        expect(await soundViews(state), state.key).toEqual(before)
        count++
        last = state
        if (count % 25 > 0) continue
        const again = await open(new CrashFiles(state.files))
        expect((await again.compact({ zero })).fileSize, state.key).toBeLessThan(oldFileSize)
        expect(await viewDigests(again), state.key).toEqual(before)
      }
      expect(count).toBeGreaterThan(20)
      expect(last?.files.get(PATH)?.length).toBe(fileSize)
    },
  )
})
