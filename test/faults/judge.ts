/** Judges what a verb left on the files: names, views, tables, and whether one can go on with it. */

import { createHash } from 'node:crypto'
import { checkImage, looksLikeQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, temporaryKind } from '../../src/storage/index.ts'
import type { DiskFiles } from '../support/disk-files.ts'
import { onImage, viewsOf } from './scene.ts'
import { type FaultVerb, Tape } from './verb.ts'

type Views = ReadonlyMap<string, Uint8Array>

/** A verb on the files of one seed, with what can be read before and after it. */
export interface Stage {
  readonly verb: FaultVerb
  readonly seed: number
  readonly start: DiskFiles
  readonly before: Views
  readonly after: Views
  readonly paths: { readonly before: readonly string[]; readonly after: readonly string[] }
  /** What it resolves to. */
  readonly answer: unknown
  /** Errors that a check finds, of a verb on a damaged image. */
  readonly errorCounts: readonly number[]
  /** Verdicts by what was left: most faults leave what others left too. */
  readonly verdicts: Map<string, string | undefined>
}

/** How the run ended that is judged. */
export interface Ending {
  /** It said that all was done. */
  readonly isDone: boolean
  readonly tape: Tape
  /** What others did to a base may have been copied: only whether images are whole counts. */
  readonly ignoresViews?: boolean
}

/** Sets up a verb, and runs it once without faults. */
export async function stageOf(verb: FaultVerb, seed: number): Promise<Stage> {
  const start = await verb.setup(seed)
  const collect = verb.collect ?? allViews
  const before = await collect(start)
  const whole = start.clone()
  const answer = await verb.run(whole, new Tape(), seed)
  const after = await collect(whole)
  const paths = { before: start.paths, after: whole.paths }
  const errorCounts = [0]
  if (verb.isDamaged === true) {
    errorCounts[0] = await errorCount(start)
    errorCounts.push(await errorCount(whole))
  }
  return {
    ...{ verb, seed, start, before, after, paths, errorCounts, answer },
    verdicts: new Map(),
  }
}

async function errorCount(files: DiskFiles): Promise<number> {
  let count = 0
  for (const path of imagesIn(files)) {
    await using file = await FileDevice.open(files, path)
    const { corruptions, checkErrors } = await checkImage(file)
    count += corruptions + checkErrors
  }
  return count
}

/** What all images read as, with their snapshots; temporary files are no images. */
export async function allViews(files: DiskFiles): Promise<Views> {
  const all = new Map<string, Uint8Array>()
  for (const path of files.paths) {
    if (isBeside(path) || isRuin(files, path)) continue
    for (const [name, bytes] of await viewsOf(files, path)) all.set(name, bytes)
  }
  return all
}

/** Files under construction, and what takes a repair back, whose number grows with each. */
function isBeside(path: string): boolean {
  return temporaryKind(path) !== undefined || /\.undo(?:\.\d+)?$/.test(path)
}

/** What a verb emptied and could not build anew: no image, whose views are gone. */
function isRuin(files: DiskFiles, path: string): boolean {
  return path.endsWith('.qcow2') && !looksLikeQcow2(files.contents(path))
}

/** What is wrong with what is there; undefined where nothing is. */
export async function judge(
  stage: Stage,
  files: DiskFiles,
  ending: Ending,
): Promise<string | undefined> {
  const key = `${keyOf(stage, files)} ${ending.isDone} ${ending.tape.step}`
  if (stage.verdicts.has(key)) return stage.verdicts.get(key)
  let verdict: string | undefined
  try {
    verdict = await look(stage, files, ending)
  } catch (error) {
    verdict = `cannot be looked at: ${error instanceof Error ? error.stack : String(error)}`
  }
  stage.verdicts.set(key, verdict)
  return verdict
}

/** The same for equal files; names of temporary ones aside. */
function keyOf({ start, paths }: Stage, files: DiskFiles): string {
  const parts: string[] = []
  for (const path of files.paths) {
    if (isBeside(path)) continue
    const bytes = files.contents(path)
    const isOld = paths.before.includes(path) && Buffer.compare(bytes, start.contents(path)) === 0
    parts.push(isOld ? path : `${path}:${createHash('sha1').update(bytes).digest('base64')}`)
  }
  return parts.join(' ')
}

async function look(stage: Stage, files: DiskFiles, ending: Ending): Promise<string | undefined> {
  const { verb } = stage
  const names = strangeNames(stage, files, ending.isDone)
  if (names.length > 0) return `files are there, or not, that should not: ${names.join(', ')}`
  const early = verb.early === undefined ? [] : await strangeEarly(stage, files, ending)
  if (early.length > 0) return `disks read as neither before nor after: ${early.join(', ')}`
  await verb.mend?.(files)
  if (ending.ignoresViews !== true) {
    const views = await (verb.collect ?? allViews)(files)
    const strange = strangeViews(stage, views, ending)
    if (strange.length > 0) return `views read as neither before nor after: ${strange.join(', ')}`
  }
  return (await unsound(stage, files)) ?? (await unusable(stage, files, ending))
}

function strangeNames({ verb, paths }: Stage, files: DiskFiles, isDone: boolean): string[] {
  if (verb.mend !== undefined) return []
  const own = (list: readonly string[]) => list.filter((path) => !isBeside(path))
  const found = new Set(own(files.paths))
  const [first, last] = [own(paths.before), own(paths.after)]
  const known = new Set([...first, ...last])
  const strange = [...found].filter((path) => !known.has(path))
  for (const path of first) {
    const isLost = verb.loses?.includes(path) === true && !isDone
    if (last.includes(path) && !found.has(path) && !isLost) strange.push(path)
  }
  if (isDone) {
    const wrong = [...found].filter((path) => !last.includes(path))
    strange.push(...wrong, ...last.filter((path) => !found.has(path)))
  }
  return strange
}

/** Of the views that hold at any instant. */
async function strangeEarly(stage: Stage, files: DiskFiles, ending: Ending): Promise<string[]> {
  const views = (await stage.verb.early?.(files)) ?? new Map<string, Uint8Array>()
  const among = (all: Views) => new Map([...all].filter(([name]) => views.has(name)))
  const { before, after } = stage
  return strangeViews({ ...stage, before: among(before), after: among(after) }, views, ending)
}

function strangeViews({ verb, before, after }: Stage, views: Views, ending: Ending): string[] {
  const { isDone, tape } = ending
  const { changes = [], inPlace = [], loses = [], guest } = verb
  const isAmong = (list: readonly string[], name: string) =>
    list.some((path) => name === path || name.startsWith(`${path} `))
  const strange: string[] = []
  for (const name of new Set([...before.keys(), ...after.keys(), ...views.keys()])) {
    const [old, young, found] = [before.get(name), after.get(name), views.get(name)]
    // What a bitmap says after a guest's writes were cut off is the crash simulator's affair.
    if (guest !== undefined && name === `${guest} bitmaps`) continue
    if (name === guest) {
      const fits = found !== undefined && (isDone ? tape.isDone(found) : tape.allows(found))
      if (!fits) strange.push(name)
      continue
    }
    if (!isDone && isAmong(inPlace, name)) continue
    if (!isDone && found === undefined && isAmong(loses, name)) continue
    const isNew = same(found, young)
    // A view that is made, or removed, is there as a whole or not at all.
    const mayBeOld =
      !isDone &&
      same(found, old) &&
      (same(old, young) || old === undefined || young === undefined || isAmong(changes, name))
    const mayBeNew = isNew
    if (!mayBeNew && !mayBeOld) strange.push(name)
  }
  return strange
}

function same(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  return a.length === b.length && Buffer.compare(a, b) === 0
}

/** Every image has no error (or those that it had), and no leak where the verb leaves none. */
async function unsound(
  { verb, errorCounts }: Stage,
  files: DiskFiles,
): Promise<string | undefined> {
  for (const path of imagesIn(files)) {
    await using file = await FileDevice.open(files, path)
    const report = await checkImage(file)
    const { corruptions, checkErrors, leaks } = report
    if (!errorCounts.includes(corruptions + checkErrors)) {
      return `${path} has ${corruptions} errors: ${report.findings.map(({ message }) => message)}`
    }
    if (leaks > 0 && verb.leaks !== true && verb.isDamaged !== true) {
      return `${path} has ${leaks} leaked clusters`
    }
  }
  return undefined
}

function imagesIn(files: DiskFiles): readonly string[] {
  // What lies in the trash of a catalogue stands where its base is no longer.
  return files.paths.filter(
    (path) => path.endsWith('.qcow2') && !path.includes('/.cowpoint/') && !isRuin(files, path),
  )
}

/** Guests can write to every image, and the verb can be done again. */
async function unusable(
  { verb, seed, after, before }: Stage,
  files: DiskFiles,
  { isDone, ignoresViews = false }: Ending,
): Promise<string | undefined> {
  if (verb.isDamaged !== true) {
    const used = files.clone()
    for (const path of imagesIn(used)) {
      await onImage(used, path, async (image) => {
        await image.write(Math.floor(image.size / 3), new Uint8Array(700).fill(99))
        await image.flush()
      })
      await using file = await FileDevice.open(used, path)
      const { corruptions, checkErrors } = await checkImage(file)
      if (corruptions + checkErrors > 0) return `${path} gets errors when it is written to`
    }
  }
  if (isDone || ignoresViews || verb.guest !== undefined) return undefined
  const collect = verb.collect ?? allViews
  if (verb.repeats !== true && !equal(await collect(files), before)) return undefined
  const again = files.clone()
  const { emptyFolder } = verb
  // Fails where there is none, or something is in it.
  if (emptyFolder !== undefined) await again.removeFolder(emptyFolder).catch(() => {})
  await verb.run(again, new Tape(), seed)
  if (!equal(await collect(again), after)) return 'done again it ends otherwise'
  return undefined
}

function equal(a: Views, b: Views): boolean {
  return a.size === b.size && [...a].every(([name, bytes]) => same(bytes, b.get(name)))
}
