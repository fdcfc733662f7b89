/**
 * What a state may show: the views after the last step that must last, or after one that was begun. An atomic step shows as
 * before or as after; of guest writes that were not flushed each sector shows itself old or new.
 */

import type { WalkedView } from './image-walk.ts'
import { SECTOR_SIZE } from './sector.ts'
import { type SeenBitmap, sameView, sameViews, type ViewSet } from './view-set.ts'

/** How a step may be cut off: as a whole or not at all, view by view, or sector by sector. */
export type StepKind = 'atomic' | 'staged' | 'guest'

/** What was done, and what could be seen afterwards. */
export interface StepRecord {
  readonly name: string
  readonly kind: StepKind
  readonly after: ViewSet
}

/** The steps of a run; the first is how it began. */
export interface History {
  readonly steps: readonly StepRecord[]
  readonly leaks: 'none' | 'allowed'
  /** Bitmaps may be found in use: a session records into them. */
  readonly bitmapSession: boolean
  /** Only what disks and snapshots read as counts, not options of the format and bitmaps. */
  readonly viewsOnly?: boolean
  /** The image is damaged before: what is wrong then may stay until it is as after the first step. */
  readonly isDamaged?: boolean
}

/** Why the state must not be; undefined where it is as it should be. `lasting` steps must show, `step` was begun. */
export function judge(
  seen: ViewSet,
  history: History,
  { step, lasting }: { step: number; lasting: number },
): string | undefined {
  if (history.isDamaged && lasting === 0 && isAsFound(seen, history)) return undefined
  if (seen.problems.length > 0) return seen.problems[0]
  if (history.leaks === 'none' && seen.leaks > 0) return `${seen.leaks} leaked clusters`
  let reason: string | undefined
  let isMixedTried = false
  for (let at = Math.min(step, history.steps.length - 1); at >= lasting; at--) {
    const { after, kind } = history.steps[at] as StepRecord
    const wrong = differs(seen, after, history)
    if (wrong === undefined) return undefined
    reason ??= wrong
    if (kind === 'staged' && at > lasting) {
      reason = stagedReason(seen, (history.steps[at - 1] as StepRecord).after, after)
      if (reason === undefined) return undefined
    }
    if (kind !== 'guest' || isMixedTried) continue
    // What is between fewer of the writes is between all of them too.
    isMixedTried = true
    reason = mixedReason(seen, history, lasting, at)
    if (reason === undefined) return undefined
  }
  return reason
}

/** What was there before and is there after is there, and every view reads as before or as after. */
function stagedReason(seen: ViewSet, before: ViewSet, after: ViewSet): string | undefined {
  const named = (set: ViewSet, label: string) => set.views.find((view) => view.label === label)
  for (const view of seen.views) {
    const choices = [named(before, view.label), named(after, view.label)]
    if (choices.some((one) => one !== undefined && sameView(view, one))) continue
    return `view ${view.label} is neither old nor new`
  }
  const lost = before.views.find(
    ({ label }) => named(after, label) !== undefined && named(seen, label) === undefined,
  )
  return lost === undefined ? undefined : `view ${lost.label} is missing`
}

/** Whether everything that is wrong, and everything else, is as it was at the begin. */
function isAsFound(seen: ViewSet, history: History): boolean {
  const { after } = history.steps[0] as StepRecord
  return (
    seen.problems.join() === after.problems.join() &&
    seen.leaks === after.leaks &&
    differs(seen, after, history) === undefined
  )
}

/** In what a state is not the one that was seen after a step. */
function differs(seen: ViewSet, after: ViewSet, history: History): string | undefined {
  if (!sameViews(seen.views, after.views)) return viewReason(seen, after)
  return restDiffers(seen, after, history)
}

function restDiffers(seen: ViewSet, after: ViewSet, history: History): string | undefined {
  if (history.viewsOnly) return undefined
  if (seen.facts.length !== after.facts.length) return 'images are missing'
  const wrong = seen.facts.findIndex(
    (fact, index) => withoutBacking(fact) !== withoutBacking(after.facts[index]!),
  )
  if (wrong >= 0) return `header says ${seen.facts[wrong]}, not ${after.facts[wrong]}`
  return bitmapReason(seen, after, history)
}

/** Names of backing files change in several files one after the other; where they lead the views tell. */
function withoutBacking(fact: string): string {
  return fact.replace(/"backing":\{[^}]*\},?/, '')
}

function viewReason(seen: ViewSet, after: ViewSet): string {
  for (const view of after.views) {
    const found = seen.views.find(({ label }) => label === view.label)
    if (found === undefined) return `view ${view.label} is missing`
    if (!sameView(found, view)) {
      const sector = view.contents.findIndex((content, index) => found.contents[index] !== content)
      return `view ${view.label} (${found.size} bytes) differs in sector ${sector}`
    }
  }
  return `views ${seen.views.map(({ label }) => label).join()} are there`
}

/**
 * Guest writes since `lasting` up to `last`, all of them guest steps: every sector of the first view as after one of them, all
 * else as it was.
 */
function mixedReason(
  seen: ViewSet,
  history: History,
  lasting: number,
  last: number,
): string | undefined {
  const steps = history.steps.slice(lasting, last + 1)
  if (steps.slice(1).some(({ kind }) => kind !== 'guest')) return 'neither old nor new'
  const base = (steps[0] as StepRecord).after
  const others = seen.views.slice(1)
  if (!sameViews(others, base.views.slice(1))) {
    return viewReason({ ...seen, views: others }, { ...base, views: base.views.slice(1) })
  }
  const [view] = seen.views
  const allowed = steps.map(({ after }) => after.views[0] as WalkedView)
  if (view === undefined || view.size !== allowed[0]?.size) return 'disk has another size'
  const sector = foreignSector(view, allowed)
  if (sector >= 0) return `sector ${sector} of the disk is neither old nor new`
  return restDiffers(seen, base, history)
}

/** The first sector that reads as none of the allowed views; -1 for none. */
function foreignSector(view: WalkedView, allowed: readonly WalkedView[]): number {
  const { contents } = view
  for (let index = 0; index < contents.length; index++) {
    const content = contents[index]
    let found = false
    for (let at = 0; at < allowed.length && !found; at++) {
      found = allowed[at]?.contents[index] === content
    }
    if (!found) return index
  }
  return -1
}

function bitmapReason(seen: ViewSet, after: ViewSet, history: History): string | undefined {
  if (seen.bitmaps.length !== after.bitmaps.length) return 'other bitmaps are there'
  for (const [index, bitmap] of seen.bitmaps.entries()) {
    const expected = after.bitmaps[index] as SeenBitmap
    const { name, auto, granularityBits, hash } = bitmap
    const isSame =
      name === expected.name &&
      auto === expected.auto &&
      granularityBits === expected.granularityBits
    if (!isSame) return `bitmap ${name} is another one`
    if (history.bitmapSession) {
      const missed = bitmap.inUse ? undefined : missedReason(seen, bitmap, history)
      if (missed !== undefined) return missed
    } else if (bitmap.inUse !== expected.inUse || hash !== expected.hash) {
      return `bitmap ${name} has other bits`
    }
  }
  return undefined
}

/** A bitmap that is not in use must have every sector that differs from the begin of the run. */
function missedReason(seen: ViewSet, bitmap: SeenBitmap, history: History): string | undefined {
  const start = (history.steps[0] as StepRecord).after
  const before = start.bitmaps.find(({ name }) => name === bitmap.name)
  if (before === undefined) return undefined
  const now = seen.views.find(({ label }) => label === bitmap.view)
  const then = start.views.find(({ label }) => label === bitmap.view)
  if (now === undefined || then === undefined) return undefined
  const bits = bitmap.bits()
  const oldBits = before.bits()
  for (let at = 0; at < oldBits.length; at++) {
    const lost = (oldBits[at] as number) & ~(bits[at] ?? 0)
    if (lost !== 0) return `bitmap ${bitmap.name} lost bits that were set`
  }
  if (!before.auto) return undefined
  const perBit = 2 ** bitmap.granularityBits / SECTOR_SIZE
  for (let index = 0; index < now.contents.length; index++) {
    if (now.contents[index] === then.contents[index]) continue
    const bit = Math.floor(index / perBit)
    if ((((bits[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1) continue
    return `bitmap ${bitmap.name} does not have sector ${index}, which was written`
  }
  return undefined
}
