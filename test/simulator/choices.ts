/**
 * The states that are tried at one position of a trace, in tiers. T1: up to ten pending events all their subsets. T2: with more
 * each prefix, each alone, each left out, and random ones. T3: the latest write torn. T4: random draws of everything.
 */

import type { Choice, CrashDisk } from './crash-disk.ts'
import type { Random } from './random.ts'
import type { NameModel, Pending, Timeline } from './timeline.ts'

/** How far enumeration goes. */
export interface Tiers {
  /** Up to this many pending events all subsets are tried. */
  readonly subsetLimit: number
  /** Up to this many changed sectors a write is torn in all ways. */
  readonly tearLimit: number
  readonly names: NameModel
}

/** What a run of the tests enumerates. */
export const DEFAULT_TIERS: Tiers = { subsetLimit: 10, tearLimit: 10, names: 'ordered' }
/** Everything there is, as long as there is not too much. */
export const ALL_TIERS: Tiers = { subsetLimit: 16, tearLimit: 14, names: 'weak' }

const RANDOM_SUBSETS = 64
const RANDOM_TEARS = 8

/**
 * The choices of tiers T1 to T3. The same object comes again and again, changed. Unless `fresh` is set only those that have the
 * latest event, since the others were there at the position before.
 */
export function* choices(
  timeline: Timeline,
  disk: CrashDisk,
  { tiers, random, fresh }: { tiers: Tiers; random: Random; fresh: boolean },
): Generator<Choice> {
  const { pending } = timeline
  const count = pending.length
  const choice = emptyChoice(timeline, disk)
  const latest = fresh ? undefined : count - 1
  for (const mask of subsets(count, latest, tiers, random)) {
    for (let event = 0; event < count; event++) choice.events[event] = mask(event) ? 1 : 0
    if (!isLegal(pending, choice, tiers.names)) continue
    yield* withLengths(choice, disk, mask === ALL || mask === NONE)
  }
  if (latest !== undefined) yield* tears(choice, { pending, disk, tiers, random })
}

/** A random draw, T4. */
export function draw(
  timeline: Timeline,
  disk: CrashDisk,
  { tiers, random }: { tiers: Tiers; random: Random },
): Choice {
  const { pending } = timeline
  const choice = emptyChoice(timeline, disk)
  const density = random(4)
  pending.forEach((one, event) => {
    const fate = random(8)
    const size = one.kind === 'write' ? one.changes.length : 1
    if (size > 1 && fate < 2) {
      const mask = new Uint8Array(size)
      for (let at = 0; at < size; at++) mask[at] = random(2)
      choice.events[event] = mask
    } else {
      choice.events[event] = random(4) < [1, 2, 2, 3][density]! ? 1 : 0
    }
  })
  if (tiers.names === 'ordered') keepPrefix(pending, choice)
  disk.lengthFiles.forEach(({ lengths }, place) => {
    choice.lengths[place] = random(lengths.length + 1)
  })
  return choice
}

/** The choice of nothing. */
export function emptyChoice(timeline: Timeline, disk: CrashDisk): Choice {
  return {
    events: new Array<0 | 1 | Uint8Array>(timeline.pending.length).fill(0),
    lengths: new Array<number>(disk.lengthFiles.length).fill(0),
  }
}

type Mask = (event: number) => boolean

const ALL: Mask = () => true
const NONE: Mask = () => false

function* subsets(
  count: number,
  latest: number | undefined,
  { subsetLimit }: Tiers,
  random: Random,
): Generator<Mask> {
  yield ALL
  if (latest === undefined) yield NONE
  if (count <= subsetLimit) {
    for (let bits = 0; bits < 2 ** count; bits++) {
      if (latest !== undefined && ((bits >> latest) & 1) === 0) continue
      yield (event) => ((bits >> event) & 1) === 1
    }
    return
  }
  for (let one = 0; one < count; one++) {
    if (latest === undefined) {
      yield (event) => event < one
      yield (event) => event === one
    } else {
      yield (event) => event < one || event === latest
      yield (event) => event === one || event === latest
    }
    if (one !== latest) yield (event) => event !== one
  }
  for (let round = 0; round < RANDOM_SUBSETS; round++) {
    const bits = Array.from({ length: count }, () => random(2) === 1)
    yield (event) => event === latest || (bits[event] as boolean)
  }
}

/** The choice with the durable lengths, with the newest ones, and, where asked for, with those between. */
function* withLengths(choice: Choice, disk: CrashDisk, all: boolean): Generator<Choice> {
  const files = disk.lengthFiles
  choice.lengths.fill(0)
  yield choice
  if (files.length === 0) return
  files.forEach(({ lengths }, place) => {
    choice.lengths[place] = lengths.length
  })
  yield choice
  if (!all) return
  for (const [place, { lengths }] of files.entries()) {
    for (let at = lengths.length - 1; at >= 0; at--) {
      choice.lengths[place] = at
      yield choice
    }
    choice.lengths[place] = lengths.length
  }
}

function* tears(
  choice: Choice,
  given: {
    readonly pending: readonly Pending[]
    readonly disk: CrashDisk
    readonly tiers: Tiers
    readonly random: Random
  },
): Generator<Choice> {
  const { pending, disk, tiers, random } = given
  const latest = pending.at(-1)
  if (latest?.kind !== 'write' || latest.changes.length < 2) return
  const size = latest.changes.length
  disk.lengthFiles.forEach(({ lengths }, place) => {
    choice.lengths[place] = lengths.length
  })
  for (const mask of tearMasks(size, tiers, random)) {
    for (const rest of [0, 1] as const) {
      choice.events.fill(rest)
      choice.events[choice.events.length - 1] = mask
      if (tiers.names === 'ordered') keepPrefix(pending, choice)
      yield choice
    }
  }
}

function* tearMasks(size: number, { tearLimit }: Tiers, random: Random): Generator<Uint8Array> {
  if (size <= tearLimit) {
    for (let bits = 1; bits < 2 ** size - 1; bits++) {
      yield Uint8Array.from({ length: size }, (_, at) => (bits >> at) & 1)
    }
    return
  }
  for (const cut of new Set([1, size >> 1, size - 1])) {
    yield Uint8Array.from({ length: size }, (_, at) => (at < cut ? 1 : 0))
    yield Uint8Array.from({ length: size }, (_, at) => (at < cut ? 0 : 1))
  }
  for (let round = 0; round < RANDOM_TEARS; round++) {
    yield Uint8Array.from({ length: size }, () => random(2))
  }
}

/** Whether the changes of names are a prefix, where the model demands it. */
function isLegal(pending: readonly Pending[], choice: Choice, model: NameModel): boolean {
  if (model === 'weak') return true
  let ended = false
  for (const [event, one] of pending.entries()) {
    if (one.kind !== 'name') continue
    if (choice.events[event] === 0) ended = true
    else if (ended) return false
  }
  return true
}

function keepPrefix(pending: readonly Pending[], choice: Choice): void {
  let ended = false
  for (const [event, one] of pending.entries()) {
    if (one.kind !== 'name') continue
    if (choice.events[event] === 0) ended = true
    else if (ended) choice.events[event] = 0
  }
}
