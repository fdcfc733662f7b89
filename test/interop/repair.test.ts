/**
 * `check -r` against the real qemu-img: over the broken images of test/images what is repaired, what is left and how it ends, with
 * the differences that are wanted; on small images the texts; and qemu-img's own check on every result.
 */

import { basename, dirname } from 'node:path'
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

/** Why the verdict is not the same. */
const WHY = {
  movesRefcounts:
    'all refcount structures are written anew, so what lay on the old ones is right by that alone',
  dropsBlocks: 'a refcount block that lies nowhere is left out, not made to lie somewhere',
  givesUp: 'qemu-img gives up half-way, with an image that is neither the old nor a repaired one',
  cutOff: 'a repair would write where entries of a file that was cut off point to: it is refused',
  unalignedTable: 'a table that no reader can read is left as it is',
} as const

/** What we do otherwise, and why; the verdict is ours. */
const DIFFERENCES: Readonly<Record<string, { readonly why: string; readonly ours: Verdict | 1 }>> =
  {
    'rt-offset-0 all': { why: WHY.movesRefcounts, ours: [0, 40, 0, 0, 0] },
    'rt-clusters-past-file all': { why: WHY.givesUp, ours: [0, 57425, 1, 0, 0] },
    'truncated-130 all': { why: WHY.givesUp, ours: [2, 2, 0, 1, 0] },
    'truncated-512 all': { why: WHY.givesUp, ours: [2, 2, 0, 1, 0] },
    'truncated-l1 all': { why: WHY.givesUp, ours: [2, 4, 0, 43, 1] },
    'truncated-snapshot-table leaks': { why: WHY.cutOff, ours: 1 },
    'truncated-compressed leaks': { why: WHY.cutOff, ours: 1 },
    'truncated-snapshot-table all': { why: WHY.cutOff, ours: 1 },
    'truncated-compressed all': { why: WHY.cutOff, ours: 1 },
    'l1-entry-unaligned all': { why: WHY.unalignedTable, ours: [2, 0, 8, 193, 0] },
    'l1-entry-header all': { why: WHY.givesUp, ours: [2, 4, 10, 43, 1] },
    'l1-entry-l1 all': { why: WHY.givesUp, ours: [0, 3, 10, 0, 0] },
    'l2-entry-refcount-table leaks': { why: WHY.movesRefcounts, ours: [0, 0, 1, 0, 0] },
    'l2-entry-refcount-table all': { why: WHY.movesRefcounts, ours: [0, 1, 1, 0, 0] },
    'rt-entry-unaligned all': { why: WHY.givesUp, ours: [0, 1, 0, 0, 0] },
    'rt-entry-outside all': { why: WHY.dropsBlocks, ours: [0, 14, 0, 0, 0] },
    'rt-entry-reserved all': { why: WHY.givesUp, ours: [0, 1, 1, 0, 0] },
    'rt-entry-second-outside all': { why: WHY.dropsBlocks, ours: [0, 1, 0, 0, 0] },
    'snapshot-l1-active all': { why: WHY.givesUp, ours: [0, 47, 34, 0, 0] },
    'snapshot-l1-size-past-file all': { why: WHY.cutOff, ours: 1 },
    'snapshot-extra-8 leaks': { why: WHY.cutOff, ours: 1 },
    'snapshot-name-size leaks': { why: WHY.cutOff, ours: 1 },
    'snapshot-name-size all': { why: WHY.cutOff, ours: 1 },
  }

async function theirs(path: string, word: Word): Promise<Verdict | 1> {
  const args = ['check', '-f', 'qcow2', '-r', word, '--output=json', basename(path)]
  const { status, stdout } = await qemuImg(args, { cwd: dirname(path), timeoutMs: 20_000 })
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
      expect(actual, difference.why).toEqual(difference.ours)
      expect(actual, 'not a difference').not.toEqual(expected)
    })
  })
})

/** Header 0, refcount table 1, refcount block 2, L1 3, L2 4, data from 5 on. */
const damage = (name: string, ...patches: readonly Patch[]) =>
  scene(
    name,
    'qemu-img create -f qcow2 a.qcow2 1M',
    "qemu-io -c 'write 0 192k' a.qcow2",
    (folder) => pokeFile(`${folder}/a.qcow2`, patches),
  )

const twice = damage('two entries on one cluster', { l2: 1, value: '0x8000000000050000' })

const mendable = [
  damage('sound'),
  damage('a leaked cluster', { refcount: 7, value: 2 }),
  damage('a refcount of zero', { refcount: 6, value: 0 }),
  damage('a cleared copied flag', { l2: 0, value: '0x50000' }),
  twice,
  damage('an unaligned zero cluster', { l2: 1, value: '0x8000000000060201' }),
]

/** New refcounts lie behind the end of the image, where theirs are written in place. */
const withoutEnd = (text: string): string =>
  text.replace(/(Image end offset: |"image-end-offset": )\d+/, '$1…')

/** Our undo file, and refcounts in other places, are no differences. */
const ANYWHERE = {
  writes: true,
  normalise: withoutEnd,
  ignore: ['a.qcow2.undo'],
  anyInfo: true,
} as const

const never = scene(
  'never closed',
  'qemu-img create -f qcow2 -o lazy_refcounts=on a.qcow2 1M',
  "qemu-io -c 'write 0 256k' -c abort a.qcow2 || true",
)

describeDifferential(
  'the texts of a repair',
  [...mendable, never].flatMap((scene) =>
    // What is left over and why is compared above; here files are too, and none may be more.
    WORDS.filter((word) => word === 'all' || scene !== twice).flatMap((word): Differential[] => [
      { scene, words: `check -r ${word} a.qcow2`, ...ANYWHERE },
      { scene, words: `check -r ${word} --output=json a.qcow2`, ...ANYWHERE },
      { scene, words: `check -q -r ${word} a.qcow2`, ...ANYWHERE },
    ]),
  ),
)

/** Freed by qemu-img, kept by us: each of them is data whose reference was destroyed. */
const KEPT = [
  'l1-entry-lost',
  'l1-entry-l1',
  'l2-entry-outside',
  'snapshot-count-low',
  'snapshot-l1-size-0',
  'snapshot-l1-outside',
  'snapshot-l1-entry-lost',
  'bitmap-table-outside',
]

describeWithQemu('leaks that look like lost data are kept', () => {
  test.each(KEPT)('%s', async (name) => {
    const image = damaged.find((candidate) => candidate.name === name)
    if (image === undefined) throw new Error(`no broken image ${name}`)
    for (const word of WORDS) {
      await onCopies(image, async (_, path) => {
        const verdict = await ours(path, word, false)
        if (verdict === 1) throw new Error('refused')
        const [status, , leaksFixed, , leaks] = verdict
        expect({ status: status >= 2, leaksFixed }).toEqual({ status: true, leaksFixed: 0 })
        expect(leaks).toBe(image.check.leaks)
      })
    }
  })
})
