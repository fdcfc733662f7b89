/**
 * `check -r` against the real qemu-img: over the broken images of test/images what is repaired, what is left and how it ends, with
 * the differences that are wanted; on small images the texts; and qemu-img's own check on every result.
 */

import { expect, test } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import { type RepairReport, repairImage } from '../../src/qcow2/repair.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { countsOf, qemuOutcome } from '../qcow2/check-oracle.ts'
import { type BrokenImage, imageManifest, unpackImage } from '../support/image-matrix.ts'
import { type Patch, pokeFile } from '../support/poke.ts'
import { describeWithQemu, qemuImg } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'
import { type Differential, describeDifferential, scene } from './differential.ts'

/** Exit status, then what was repaired and what is left. */
type Verdict = readonly [
  status: number,
  corruptionsFixed: number,
  leaksFixed: number,
  corruptions: number,
  leaks: number,
]

const WORDS = ['leaks', 'all'] as const
type Word = (typeof WORDS)[number]

/** What we do otherwise, and why; the verdict is ours. */
const DIFFERENCES: Readonly<Record<string, { readonly why: string; readonly ours?: Verdict }>> = {}

async function theirs(path: string, word: Word): Promise<Verdict | 1> {
  const args = ['check', '-f', 'qcow2', '-r', word, '--output=json', path]
  const { status, stdout } = await qemuImg(args, { timeoutMs: 20_000 })
  if (stdout === '' || status === 1) return 1
  const fields = JSON.parse(stdout) as Record<string, number | undefined>
  const { corruptions = 0, leaks = 0 } = fields
  const fixed = [fields['corruptions-fixed'] ?? 0, fields['leaks-fixed'] ?? 0] as const
  return [status, ...fixed, corruptions, leaks]
}

async function ours(path: string, what: Word, force: boolean): Promise<Verdict | 1> {
  const file = await FileDevice.open(nodeFiles, path, { writable: true, growable: true })
  try {
    const report = await repairImage(file, { what, force })
    if (report.changed) await agrees(path, report)
    return verdictOf(report)
  } catch (error) {
    if (error instanceof CowpointError) return 1
    throw error
  } finally {
    await file.close()
  }
}

/** The result is what we say it is, also for qemu-img. */
async function agrees(path: string, { after }: RepairReport): Promise<void> {
  const outcome = await qemuOutcome(path)
  expect(outcome).toMatchObject({ end: 'done', counts: countsOf(after) })
}

function verdictOf(report: RepairReport): Verdict | 1 {
  const { after, failure, corruptionsFixed, leaksFixed } = report
  if ((failure ?? after.failure) !== undefined || after.checkErrors > 0) return 1
  const { corruptions, leaks } = after
  const status = corruptions > 0 ? 2 : leaks > 0 ? 3 : 0
  return [status, corruptionsFixed, leaksFixed, corruptions, leaks]
}

async function onCopies<T>(
  image: BrokenImage,
  work: (first: string, second: string) => Promise<T>,
): Promise<T> {
  return withTempFolder((a) =>
    withTempFolder((b) => work(unpackImage(image, a), unpackImage(image, b))),
  )
}

/** Broken images that can be checked, and have something to repair. */
const damaged = imageManifest().broken.filter(
  ({ check }) => check.totalClusters !== undefined && check.status > 0,
)

describeWithQemu('a damaged image is repaired as by qemu-img, leaks by force', () => {
  const cases = damaged.flatMap((image) => WORDS.map((word) => ({ image, word })))
  test.each(cases)('$image.name with -r $word', async ({ image, word }) => {
    await onCopies(image, async (first, second) => {
      const expected = await theirs(first, word)
      const actual = await ours(second, word, true)
      const difference = DIFFERENCES[`${image.name} ${word}`]
      if (difference === undefined) return expect(actual).toEqual(expected)
      expect(actual, difference.why).toEqual(difference.ours ?? 1)
      expect(actual, 'not a difference').not.toEqual(expected)
    })
  })
})
