/**
 * Fault points: a verb, a seed, a kind of fault, and the call at which it comes. Each has a key by which it can be tried again. For
 * every verb and kind the calls are tried in turn until the verb passes without meeting the fault.
 */

import { CowpointError } from '../../src/base/errors.ts'
import type { DiskFiles } from '../support/disk-files.ts'
import { CHAIN_VERBS } from './chain-verbs.ts'
import { CHECKPOINT_VERBS } from './checkpoint-verbs.ts'
import { COMMAND_CHECKPOINTS } from './command-checkpoints.ts'
import type { Answer } from './command-line.ts'
import { COMMAND_VERBS } from './command-verbs.ts'
import { FaultFiles, type FaultPlan } from './fault-files.ts'
import { FAULT_KINDS, type FaultKind, MEDDLINGS } from './fault-kinds.ts'
import { IMAGE_VERBS } from './image-verbs.ts'
import { judge, type Stage, stageOf } from './judge.ts'
import { LARGEST_CLUSTERS, SHAPE_COUNT, shapeOf } from './scene.ts'
import { type FaultVerb, Tape } from './verb.ts'

/** All verbs that are tried. */
export const FAULT_VERBS: readonly FaultVerb[] = [
  ...IMAGE_VERBS,
  ...CHAIN_VERBS,
  ...CHECKPOINT_VERBS,
  ...COMMAND_VERBS,
  ...COMMAND_CHECKPOINTS,
]

/** One fault at one call. */
export interface FaultPoint {
  readonly verb: string
  readonly seed: number
  readonly kind: string
  readonly turn: number
}

/** How a point can be named on a command line. */
export function keyOfPoint({ verb, seed, kind, turn }: FaultPoint): string {
  return `${verb}.${seed}.${kind}.${turn}`
}

/** The point of a key. */
export function pointOfKey(key: string): FaultPoint {
  const [verb = '', seed, kind = '', turn] = key.split('.')
  return { verb, seed: Number(seed), kind, turn: Number(turn) }
}

/** What came of a point. */
export interface PointOutcome {
  readonly point: FaultPoint
  /** The verb met the fault. */
  readonly fired: boolean
  /** The code of the error that it rejected with, if any. */
  readonly code?: string
  /** What is wrong; undefined where nothing is. */
  readonly failure?: string
}

const stages = new Map<string, Promise<Stage>>()

function stageFor(verb: FaultVerb, seed: number): Promise<Stage> {
  const key = `${verb.name} ${seed}`
  const known = stages.get(key)
  if (known !== undefined) return known
  const stage = stageOf(verb, seed)
  // Those of the seed before are not needed any more.
  if (stages.size > 8) stages.clear()
  stages.set(key, stage)
  return stage
}

const rejections: unknown[] = []
process.on('unhandledRejection', (reason) => {
  rejections.push(reason)
})

/** Tries one point. */
export async function tryPoint(point: FaultPoint): Promise<PointOutcome> {
  const verb = FAULT_VERBS.find(({ name }) => name === point.verb)
  const kind = [...FAULT_KINDS, ...MEDDLINGS].find(({ name }) => name === point.kind)
  if (verb === undefined || kind === undefined) throw new RangeError(`no point ${point.verb}`)
  const stage = await stageFor(verb, point.seed)
  const disk = stage.start.clone()
  const meddling = meddle(verb, kind, disk, point)
  const files = new FaultFiles(disk, { kind, turn: point.turn, ...meddling })
  const tape = new Tape()
  let error: unknown
  let answer: unknown
  let isDone = true
  try {
    answer = await verb.run(files, tape, point.seed)
  } catch (reason) {
    error = reason
    isDone = false
  }
  await new Promise((resolve) => setImmediate(resolve))
  meddling?.restore()
  const code = error instanceof CowpointError ? { code: error.code } : {}
  const failure =
    misbehaviour(files, verb, error, isDone) ??
    (isDone ? otherAnswer(stage, answer, kind) : undefined) ??
    (await judge(stage, disk, { isDone, tape, ignoresViews: kind.name === 'change' }))
  const wrong = failure === undefined ? {} : { failure: `${failure}${told(error)}` }
  return { point, fired: files.fired, ...code, ...wrong }
}

function told(error: unknown): string {
  if (error === undefined) return ' (no error)'
  return ` (${error instanceof Error ? error.stack : String(error)})`
}

/** What can be seen without looking at the files. */
function misbehaviour(
  files: FaultFiles,
  verb: FaultVerb,
  error: unknown,
  isDone: boolean,
): string | undefined {
  const { kind } = files.plan as FaultPlan
  const unhandled = rejections.splice(0)
  if (unhandled.length > 0) return `unhandled rejection: ${String(unhandled[0])}`
  if (files.openCount !== 0) return `${files.openCount} descriptors are left open`
  if (files.lockCount !== 0) return `${files.lockCount} locks are left`
  const [sin] = files.sins
  if (sin !== undefined) return sin
  if (!files.fired) return isDone ? undefined : 'it fails without a fault'
  if (isDone) return isAboutFlush(kind) ? 'a failed flush is not reported' : undefined
  if (!(error instanceof CowpointError)) return 'it rejects with something else than our errors'
  if (kind.deed.how === 'meddle') return undefined
  const isTold = codesOf(error).some((code) => code === 'FLUSH_FAILED' || code === 'SCRIPT_FAILED')
  if (isAboutFlush(kind) && !isTold) {
    return `a failed flush is reported as ${error.code}`
  }
  if (kind.codes.includes(error.code) || verb.codes?.includes(error.code)) return undefined
  return `${kind.name} is reported as ${error.code}`
}

/** Of a verb that reads: it says something else than without the fault, and does not say that it may be wrong. */
function otherAnswer(
  { verb, answer }: Stage,
  found: unknown,
  { deed }: FaultKind,
): string | undefined {
  if (verb.answers === undefined) return undefined
  const isTrue = deed.how !== 'meddle' || (deed.with === 'shrink' && verb.answers === 'content')
  if (!isTrue) return undefined
  const [whole, now] = [answer as Answer, found as Answer]
  if (whole.stdout === now.stdout && whole.status === now.status) return undefined
  if (now.isWarned || (now.status !== 0 && now.status !== whole.status)) return undefined
  const lines = whole.stdout.split('\n')
  const strange = now.stdout.split('\n').find((line, at) => line !== lines[at])
  return `it answers otherwise without a word: ${strange ?? 'less'}, with ${now.status}`
}

function isAboutFlush({ name }: FaultKind): boolean {
  return name.startsWith('sync-')
}

function codesOf(error: unknown): string[] {
  if (!(error instanceof CowpointError)) return []
  return [error.code, ...codesOf(error.cause)]
}

/** What somebody else does to a base, and how it is put back. */
function meddle(
  { bases = [] }: FaultVerb,
  { deed }: FaultKind,
  disk: DiskFiles,
  { turn, seed }: FaultPoint,
): { meddle(): void; restore(): void } | undefined {
  if (deed.how !== 'meddle') return undefined
  const path = bases[turn % bases.length] as string
  const bytes = disk.contents(path)
  const { clusterSize } = shapeOf(seed)
  const middle = Math.ceil(bytes.length / 2 / clusterSize) * clusterSize
  return {
    meddle() {
      if (deed.with === 'vanish') void disk.unlink(path)
      else if (deed.with === 'shrink') disk.cut(path, middle)
      else disk.overwrite(path, ((turn * 7919) % (bytes.length / 512)) * 512, junk(turn))
    },
    restore: () => disk.put(path, bytes),
  }
}

function junk(turn: number): Uint8Array {
  return new Uint8Array(512).map((_, at) => (turn % 3 === 0 ? 0xff : (at * 31 + turn) & 0xff))
}

/** Whether a kind is about flushes, which are tried on every geometry. */
export function isOfFlush(kind: FaultKind): boolean {
  return isAboutFlush(kind) || kind.name.startsWith('folder-')
}

/** All points of a verb and a seed, each tried; ends a kind when the verb no longer meets the fault. */
export async function* tryVerb(
  verb: FaultVerb,
  seed: number,
  asked = 1,
  isWanted: (kind: FaultKind) => boolean = () => true,
): AsyncGenerator<PointOutcome> {
  const stride = asked * (verb.lighter ?? 1)
  const kinds = verb.bases === undefined ? FAULT_KINDS : [...FAULT_KINDS, ...MEDDLINGS]
  for (const kind of kinds.filter(isWanted)) {
    for (let turn = (seed + kind.name.length) % Math.min(stride, 3); ; turn += stride) {
      const outcome = await tryPoint({ verb: verb.name, seed, kind: kind.name, turn })
      yield outcome
      if (!outcome.fired) break
    }
  }
}

/** Whatever is tried of all verbs, in the order in which any part of it is a fair sample of them. */
export async function* tryAll(
  verbs: readonly FaultVerb[],
  { seed, stride }: { readonly seed: number; readonly stride: number },
): AsyncGenerator<PointOutcome> {
  // Neighbours meet other geometries; the next seed turns them all.
  for (const [index, verb] of verbs.entries()) {
    yield* tryVerb(verb, 1 + ((seed + index) % SHAPE_COUNT), stride)
  }
  for (let turn = 1; turn < SHAPE_COUNT; turn++) {
    for (const [index, verb] of verbs.entries()) {
      yield* tryVerb(verb, 1 + ((seed + index + turn) % SHAPE_COUNT), stride, isOfFlush)
    }
  }
  for (const verb of verbs.filter(({ isOfOne }) => isOfOne === true)) {
    yield* tryVerb(verb, LARGEST_CLUSTERS, 2 * stride, isOfFlush)
  }
}
