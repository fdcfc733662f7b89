/**
 * What our engine leaves behind, by the word of the real tools: after random sequences qemu-img finds no error
 * and no leak and reads what the model says; the same script by qemu-io gives the same disk; and both take turns
 * on one image. COWPOINT_RUNS multiplies the number of runs.
 */

import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { checkImage } from '../../src/qcow2/index.ts'
import { NAMED_SHAPES, type Shape } from '../qcow2/model-geometry.ts'
import { stepsArbitrary } from '../qcow2/model-steps.ts'
import { fileSubject, type Subject } from '../qcow2/model-subject.ts'
import { Walk } from '../qcow2/model-walk.ts'
import { writeSparse } from '../support/image-matrix.ts'
import type { ModelDisk } from '../support/model-disk.ts'
import { describeWithQemu, qemuImg, qemuImgOk } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'
import {
  imagineRequest,
  play,
  playByQemu,
  type ScriptRequest,
  scriptArbitrary,
  withoutOverwrites,
} from './engine-script.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
const LIMIT_MS = 60_000 * Math.max(1, FACTOR)

/** Shapes whose whole disk fits into a file of megabytes. */
const SHAPES = Object.entries(NAMED_SHAPES).filter(([, { sizeChoice }]) => sizeChoice < 3)

function parameters(runCount: number) {
  return { numRuns: Math.ceil(runCount * FACTOR), interruptAfterTimeLimit: 20_000 * FACTOR }
}

/** qemu-img finds nothing wrong with `disk.qcow2`. */
async function expectCleanByQemu(folder: string): Promise<void> {
  const check = await qemuImg(['check', '-f', 'qcow2', 'disk.qcow2'], { cwd: folder })
  expect([check.status, check.stdout.split('\n')[0], check.stderr]).toEqual([
    0,
    'No errors were found on the image.',
    '',
  ])
}

/** qemu-img reads the active disk and each snapshot as the model says. */
async function expectContentByQemu(folder: string, model: ModelDisk): Promise<void> {
  const options = { cwd: folder }
  writeSparse(join(folder, 'model.raw'), model.contents())
  const compare = ['compare', '-f', 'qcow2', '-F', 'raw', 'disk.qcow2', 'model.raw']
  const result = await qemuImg(compare, options)
  expect([result.status, result.stdout + result.stderr]).toEqual([0, 'Images are identical.\n'])
  for (const { name, size } of model.snapshots) {
    const which = ['-l', `snapshot.name=${name}`]
    await qemuImgOk(
      ['convert', ...which, '-f', 'qcow2', '-O', 'raw', 'disk.qcow2', 'snapshot.raw'],
      options,
    )
    // qemu-img gives it the size of the active disk.
    const length = Math.min(size, model.size)
    const bytes = readFileSync(join(folder, 'snapshot.raw')).subarray(0, length)
    expect(bytes.equals(model.readSnapshot(name, 0, length)), name).toBe(true)
  }
}

async function expectCleanByUs(subject: Subject): Promise<void> {
  await using file = await subject.file()
  const { dataFile } = subject
  const report = await checkImage(file, dataFile === undefined ? {} : { dataFile })
  expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0])
}

describeWithQemu('after random steps by our engine', () => {
  test.each(SHAPES)(
    'qemu-img finds nothing wrong and reads what the model says, with %s',
    async (_name, shape) => {
      await fc.assert(
        fc.asyncProperty(stepsArbitrary, async (steps) => {
          await withTempFolder(async (folder) => {
            const subject = await fileSubject(shape, folder)
            const walk = await Walk.run(subject, steps)
            await expectCleanByQemu(folder)
            await expectContentByQemu(folder, walk.model)
          })
        }),
        parameters(1),
      )
    },
    LIMIT_MS + 30_000,
  )
})

describeWithQemu('the same script by qemu-io and by our engine', () => {
  test.each(SHAPES)(
    'gives the same disk, with %s',
    async (_name, shape) => {
      const { size } = await withTempFolder(
        async (folder) => (await fileSubject(shape, folder)).model,
      )
      const script = scriptArbitrary(shape, size, { minLength: 15, maxLength: 40 })
      await fc.assert(
        fc.asyncProperty(script, async (requests) => {
          const script = withoutOverwrites(requests, shape.clusterSize)
          await withTempFolder((folder) => comparePlay(folder, shape, script))
        }),
        parameters(1),
      )
    },
    LIMIT_MS + 30_000,
  )
})

async function comparePlay(folder: string, shape: Shape, requests: ScriptRequest[]): Promise<void> {
  const subject = await fileSubject(shape, folder)
  copyFileSync(join(folder, 'disk.qcow2'), join(folder, 'theirs.qcow2'))
  const options = { cwd: folder }
  if (subject.dataFile !== undefined) {
    // The copy gets a data file of its own, which its header names.
    copyFileSync(join(folder, 'data'), join(folder, 'theirs.data'))
    const amend = ['amend', '-f', 'qcow2', '-o', 'data_file=theirs.data', 'theirs.qcow2']
    await qemuImgOk(amend, options)
  }
  const image = await subject.open(true)
  for (const request of requests) await play(image, request)
  await image.close()
  await playByQemu(folder, 'theirs.qcow2', requests)
  const result = await qemuImg(['compare', 'disk.qcow2', 'theirs.qcow2'], options)
  expect([result.status, result.stdout]).toEqual([0, 'Images are identical.\n'])
  await expectCleanByQemu(folder)
  await expectCleanByUs(subject)
}

describeWithQemu('qemu-img, qemu-io and our engine in turn on one image', () => {
  test.each(SHAPES)(
    'keep it sound and read the same, with %s',
    async (_name, shape) => {
      const { size } = await withTempFolder(
        async (folder) => (await fileSubject(shape, folder)).model,
      )
      const turn = scriptArbitrary(shape, size, { minLength: 3, maxLength: 10 })
      const turns = fc.array(fc.record({ requests: turn, verb: fc.nat(3) }), {
        minLength: 4,
        maxLength: 6,
      })
      await fc.assert(
        fc.asyncProperty(turns, async (list) => {
          await withTempFolder((folder) => takeTurns(folder, shape, list))
        }),
        parameters(1),
      )
    },
    LIMIT_MS + 30_000,
  )
})

async function takeTurns(
  folder: string,
  shape: Shape,
  turns: readonly { requests: ScriptRequest[]; verb: number }[],
): Promise<void> {
  const subject = await fileSubject(shape, folder)
  const { model } = subject
  const options = { cwd: folder }
  const written = new Set<number>()
  for (const [index, { requests: wanted, verb }] of turns.entries()) {
    const requests = withoutOverwrites(wanted, shape.clusterSize, written)
    const canSnapshot = shape.data === 'inside' && shape.refcountBits > 2
    const names = model.snapshots.map(({ name }) => name)
    const first = names[0]
    if (index % 2 === 0) {
      const image = await subject.open(true)
      for (const request of requests) await play(image, request)
      const snapshot = image.snapshots.find(({ name }) => name === first)
      if (canSnapshot && verb <= 1) await image.createSnapshot({ name: `ours${index}` })
      else if (snapshot !== undefined && verb === 2) await image.applySnapshot(snapshot)
      else if (snapshot !== undefined && verb === 3) await image.deleteSnapshot(snapshot)
      await image.close()
    } else {
      await playByQemu(folder, 'disk.qcow2', requests)
      const snapshot = (...words: string[]) =>
        qemuImgOk(['snapshot', ...words, 'disk.qcow2'], options)
      if (canSnapshot && verb <= 1) await snapshot('-c', `theirs${index}`)
      else if (first !== undefined && verb === 2) await snapshot('-a', first)
      else if (first !== undefined && verb === 3) await snapshot('-d', first)
    }
    for (const request of requests) imagineRequest(model, request)
    const name = `${index % 2 === 0 ? 'ours' : 'theirs'}${index}`
    if (canSnapshot && verb <= 1) model.createSnapshot(name)
    else if (first !== undefined && verb === 2) model.applySnapshot(first)
    else if (first !== undefined && verb === 3) model.deleteSnapshot(first)
    await expectCleanByQemu(folder)
    await expectCleanByUs(subject)
  }
  await expectContentByQemu(folder, model)
  const image = await subject.open(false)
  const bytes = new Uint8Array(image.size)
  await image.read(0, bytes)
  expect(Buffer.from(bytes).equals(model.contents())).toBe(true)
  await image.close()
}
