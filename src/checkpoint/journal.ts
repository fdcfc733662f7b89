/**
 * Carries out operations so that a cut at any instant can be mended: `journal.json` holds the operation while it runs, and whoever
 * finds one goes on from what the files are, or takes it back where nothing that counts has happened. What a step does is in steps.ts.
 */

import { CowpointError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { statOf } from '../chain/index.ts'
import { type LockGroup, readSmallFile, transferAll, writeSmallFile } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { type Operation, parseOperation, type Step } from './journal-schema.ts'
import { isStepDone, runStep, type StepWorld } from './steps.ts'

const SIZE_LIMIT = 64 * 1024 * 1024

/** How an operation that was found ended. */
export type Recovery = 'nothing' | 'finished' | 'taken back'

/** The operation in the journal; undefined where there is none. Rejects with `JOURNAL_DAMAGED` where it cannot be understood. */
export async function readJournal(catalogue: CheckpointCatalogue): Promise<Operation | undefined> {
  let bytes: Uint8Array
  try {
    bytes = await readSmallFile(catalogue.files, journalPath(catalogue), SIZE_LIMIT)
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
  return parseOperation(new TextDecoder().decode(bytes))
}

/**
 * Carries out an operation. The caller holds the catalogue's lock and has seen that there is no journal. Where a step before the
 * one that counts fails, or the signal is aborted by then, everything is taken back and it rejects with that reason; after that a
 * failure leaves the journal, as a failed flush does at any time, and `recover` goes on from there.
 */
export async function perform(
  catalogue: CheckpointCatalogue,
  operation: Operation,
  work: LongWork = {},
  locks?: LockGroup,
): Promise<void> {
  await catalogue.prepare()
  const text = JSON.stringify({ format: 'cowpoint-journal', version: 1, ...operation })
  await writeSmallFile(catalogue.files, journalPath(catalogue), new TextEncoder().encode(text))
  const world = { catalogue, operation, work, locks }
  const { steps, point } = operation
  try {
    await keepSpace(world)
    for (const step of steps.slice(0, point + 1)) {
      work.signal?.throwIfAborted()
      await runStep(step, world)
    }
  } catch (error) {
    // What is on disk is unknown now, and more writing could only lose more: whoever comes next goes on from what is there.
    if (isFailedFlush(error)) throw error
    // What failed last may have counted nevertheless. Where not even that can be found out, the next verb will.
    const counted = steps[point]
    if (counted === undefined || !(await isStepDone(counted, world))) await takeBack(world)
    throw error
  }
  await goForward({ ...world, work: { onProgress: work.onProgress } }, steps.slice(point + 1))
}

function isFailedFlush(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    if (one instanceof CowpointError && one.code === 'FLUSH_FAILED') return true
  }
  return false
}

/** Finishes or takes back the operation that a cut left, if there is one. The caller holds the catalogue's lock. */
export async function recover(
  catalogue: CheckpointCatalogue,
  work: LongWork = {},
): Promise<Recovery> {
  const operation = await readJournal(catalogue)
  if (operation === undefined) return 'nothing'
  // Its steps are for this operation to the end, whatever the verb is that found it.
  const world = {
    catalogue,
    operation,
    work: { onProgress: work.onProgress },
    locks: undefined,
  }
  const { steps, point } = operation
  let next = 0
  for (const [index, step] of steps.entries()) {
    if (await isStepDone(step, world)) next = index + 1
  }
  if (next <= point && steps.length > 0) {
    await takeBack(world)
    return 'taken back'
  }
  await goForward(world, steps.slice(next))
  return 'finished'
}

async function goForward(world: StepWorld, steps: readonly Step[]): Promise<void> {
  const { catalogue, operation } = world
  await giveSpace(catalogue)
  for (const step of steps) await runStep(step, world)
  const { notes, disks } = operation
  await catalogue.rebuild({
    ...(notes === undefined ? {} : { notes }),
    ...(disks === undefined ? {} : { disks }),
  })
  await end(catalogue)
}

async function takeBack(world: StepWorld): Promise<void> {
  await giveSpace(world.catalogue)
  for (const step of world.operation.back) await runStep(step, world)
  await end(world.catalogue)
}

async function end(catalogue: CheckpointCatalogue): Promise<void> {
  await catalogue.files.unlink(journalPath(catalogue))
  await catalogue.files.syncFolder(catalogue.inside())
}

/** More than what one operation adds to the catalogue, as a rule. */
const CATALOGUE_GROWTH = 16 * 1024

/** Takes the space that the way forward will need, so that a full disk is noticed while there is a way back. */
async function keepSpace({ catalogue, operation }: StepWorld): Promise<void> {
  const { files } = catalogue
  const known = await statOf(files, catalogue.inside('catalogue.json'))
  const size = (known?.size ?? 0) + CATALOGUE_GROWTH + (operation.reserve ?? 0)
  await giveSpace(catalogue)
  const file = await files.open(sparePath(catalogue), 'create-new')
  try {
    if (file.reserve(0, size)) return
    const chunk = new Uint8Array(Math.min(size, 1024 * 1024)).fill(0xff)
    for (let at = 0; at < size; at += chunk.length) {
      await transferAll(file, 'write', at, chunk.subarray(0, Math.min(chunk.length, size - at)))
    }
    // A file system may find space for what was written only now.
    await file.sync()
  } finally {
    await file.close()
  }
}

async function giveSpace(catalogue: CheckpointCatalogue): Promise<void> {
  const path = sparePath(catalogue)
  if ((await statOf(catalogue.files, path)) !== undefined) await catalogue.files.unlink(path)
}

function sparePath(catalogue: CheckpointCatalogue): string {
  return catalogue.inside('spare')
}

function journalPath(catalogue: CheckpointCatalogue): string {
  return catalogue.inside('journal.json')
}
