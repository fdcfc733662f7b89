/**
 * Kills the command around each of its storage operations, and judges what it left as the fault loop does; then locks must be gone,
 * `gc` and `checkpoint resume` leave no litter, and the same line works.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Mutex } from '../../src/base/mutex.ts'
import { openChain, removeLeftovers } from '../../src/chain/index.ts'
import { CheckpointCatalogue, resumeCheckpoints } from '../../src/checkpoint/index.ts'
import { nodeFiles } from '../../src/storage/index.ts'
import { allViews, judge, type Stage, stageOf } from '../faults/judge.ts'
import { FAULT_VERBS } from '../faults/points.ts'
import { gate } from '../faults/scene.ts'
import { type FaultVerb, Tape } from '../faults/verb.ts'
import { DiskFiles } from '../support/disk-files.ts'
import type { DeadlyCommand, Death, RunEnd } from './command.ts'
import type { KillVerb } from './kill-verbs.ts'

/** Judging runs lines of the command in this process, on files in memory: one at a time. Commands that die do so side by side. */
const judging = new Mutex()

/** A line, with what it finds and what it leaves when nobody kills it. */
export interface KillStage {
  readonly line: KillVerb
  readonly stage: Stage
  /** Storage operations of a run that is not killed. */
  readonly count: number
}

/** Runs a line once to its end. */
export async function prepare(
  command: DeadlyCommand,
  line: KillVerb,
  seed = 1,
): Promise<KillStage> {
  const verb = FAULT_VERBS.find(({ name }) => name === line.like) as FaultVerb
  const library = await stageOf(verb, seed)
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-kill-'))
  try {
    library.start.dump(folder)
    const { status, stderr, count } = await command.run(folder, line.words)
    if (status !== 0 || count === undefined) throw new Error(`${line.name}: ${status} ${stderr}`)
    const whole = load(folder)
    const after = await (verb.collect ?? allViews)(whole)
    const paths = { before: library.start.paths, after: whole.paths.filter(isNoUndo) }
    return { line, count, stage: { ...library, after, paths, verdicts: new Map() } }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A repair that is done again numbers its undo file. */
function isNoUndo(path: string): boolean {
  return !/\.undo(?:\.\d+)?$/.test(path)
}

/** The files of a folder, in memory. */
function load(folder: string): DiskFiles {
  const files = new DiskFiles()
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const name = path.slice(folder.length)
    if (entry.isDirectory()) void files.makeFolder(name)
    else if (isNoUndo(name)) files.put(name, readFileSync(path))
  }
  return files
}

/** Kills one run, at an operation or after so many milliseconds; says what is wrong, undefined where nothing is. */
export async function kill(
  command: DeadlyCommand,
  { line, stage }: KillStage,
  death: Death | number,
  { again = false }: { readonly again?: boolean } = {},
): Promise<{ readonly end: RunEnd; readonly failure: string | undefined }> {
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-kill-'))
  try {
    stage.start.dump(folder)
    const end = await command.run(folder, line.words, death)
    try {
      const isDone = end.status === 0
      const failure = await judging.run(() => judgeFolder(folder, { line, stage, isDone }))
      if (failure !== undefined || !again) return { end, failure }
      return { end, failure: await repeat(command, folder, { line, stage }) }
    } catch (error) {
      // What cannot even be looked at is a failure of this kill, to be told with its key.
      const text = error instanceof Error ? error.stack : String(error)
      return { end, failure: `cannot be looked at: ${text}` }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function judgeFolder(
  folder: string,
  { line, stage, isDone }: { line: KillVerb; stage: Stage; isDone: boolean },
): Promise<string | undefined> {
  const tape = tapeOf(line, stage)
  return (
    (await judge(stage, load(folder), { isDone, tape })) ??
    (await lockedFile(folder, stage)) ??
    (await litter(folder, stage)) ??
    (await judge(stage, load(folder), { isDone, tape }))
  )
}

function tapeOf({ writes = [] }: KillVerb, { verb, before }: Stage): Tape {
  const tape = new Tape()
  const bytes = verb.guest === undefined ? undefined : before.get(verb.guest)
  if (bytes !== undefined) tape.start(bytes)
  for (const { value, offset, length } of writes) {
    tape.begin((all) => all.fill(value, offset, offset + length))
  }
  return tape
}

/** Opens every image for writing, with locks; what the verb may leave half made need be no image. */
async function lockedFile(folder: string, { verb }: Stage): Promise<string | undefined> {
  for (const path of imagesIn(folder)) {
    if (verb.loses?.includes(path.slice(folder.length))) continue
    const chain = await openChain(path, { gate, format: 'qcow2', writable: true })
    await chain.close()
  }
  return undefined
}

function imagesIn(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true }) as string[]
  return names
    .filter((name) => name.endsWith('.qcow2') && !name.includes('.cowpoint'))
    .map((name) => join(folder, name))
}

/** Cleans up as a user would; says what is left over. */
async function litter(folder: string, { verb, paths }: Stage): Promise<string | undefined> {
  const places = [folder]
  if (verb.mend !== undefined) {
    places.push(join(folder, 'vm'))
    const images = readdirSync(join(folder, 'vm')).filter((name) => /^disk\d\.qcow2$/.test(name))
    const named = images.map((name) => join(folder, 'vm', name))
    await resumeCheckpoints(await CheckpointCatalogue.find({ images: named, gate }))
  }
  await removeLeftovers(places, { minAgeMs: 0, checkpointReason: async () => undefined })
  const known = new Set([...paths.before, ...paths.after])
  const left = load(folder).paths.filter((path) => !known.has(path) && !isOfCatalogue(path))
  return left.length === 0 ? undefined : `left over: ${left.join(', ')}`
}

/** Names of layers and of what a catalogue keeps have random parts. */
function isOfCatalogue(path: string): boolean {
  return path.startsWith('/vm/.cowpoint/') && !/\.(?:tmp|cowpoint-part)$|spare$/.test(path)
}

/** Does the line once more, to its end. */
async function repeat(
  command: DeadlyCommand,
  folder: string,
  { line, stage }: { line: KillVerb; stage: Stage },
): Promise<string | undefined> {
  const { verb, before, after } = stage
  const collect = () => judging.run(() => (verb.collect ?? allViews)(load(folder)))
  const same = (a: ReadonlyMap<string, Uint8Array>, b: ReadonlyMap<string, Uint8Array>) =>
    a.size === b.size &&
    [...a].every(([name, bytes]) => Buffer.compare(bytes, b.get(name) ?? new Uint8Array(0)) === 0)
  if (verb.guest !== undefined) return undefined
  if (verb.repeats !== true && !same(await collect(), before)) return undefined
  const { emptyFolder } = verb
  // Fails where there is none, or something is in it.
  if (emptyFolder !== undefined)
    await nodeFiles.removeFolder(join(folder, emptyFolder)).catch(() => {})
  const { status, stderr } = await command.run(folder, line.words)
  if (status !== 0) return `done again it fails: ${stderr}`
  return same(await collect(), after) ? undefined : 'done again it ends otherwise'
}
