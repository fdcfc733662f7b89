/** Some sequences of one kind and one seed: run, and where one fails, made smaller and given a key that replays it. */

import fc from 'fast-check'
import type { Kind } from './kind.ts'

/** What a process is to do. */
export interface Batch {
  readonly kind: string
  readonly seed: number
  readonly count: number
  /** Which of them alone, in the words of fast-check. */
  readonly path?: string
}

/** What came of it. */
export interface BatchResult {
  readonly batch: Batch
  readonly runs: number
  /** How often each thing was done. */
  readonly notes: Readonly<Record<string, number>>
  /** Of processor time, in this process alone. */
  readonly cpuMs: number
  readonly failure?: { readonly key: string; readonly text: string }
}

/** Characters of an input that are shown; the key gives the whole. */
const SHOWN = 4_000

/** Making a failure smaller may take this long. */
const SHRINK_MS = 30_000

/** Runs a batch to its end, or to its first failure. */
export async function runBatch(kind: Kind, batch: Batch): Promise<BatchResult> {
  const notes: Record<string, number> = {}
  const property = kind.property((name, count = 1) => {
    notes[name] = (notes[name] ?? 0) + count
  })
  const start = process.cpuUsage()
  const { seed, count, path } = batch
  const first = await fc.check(property, {
    ...{ seed, numRuns: count, endOnFailure: true },
    ...(path === undefined ? {} : { path }),
  })
  const { failed, counterexamplePath } = first
  const runs = first.numRuns
  const { user, system } = process.cpuUsage(start)
  const cpuMs = (user + system) / 1000
  if (!failed) return { batch, runs, notes, cpuMs }
  const whole = counterexamplePath ?? '0'
  // A key is replayed as it is.
  const found = path === undefined ? await shrunken(kind, seed, whole) : first
  const key = `${kind.name}.${seed}.${shortPath(found.counterexamplePath ?? whole)}`
  const input = fc.stringify(found.counterexample)
  const text = `${textOf(found.errorInstance)}\n${input.slice(0, SHOWN)}`
  return { batch, runs, notes, cpuMs, failure: { key, text } }
}

/** The same failure with as little as it takes. */
async function shrunken(kind: Kind, seed: number, path: string) {
  const smaller = await fc.check(
    kind.property(() => {}),
    { seed, path, numRuns: 1_000, interruptAfterTimeLimit: SHRINK_MS },
  )
  if (smaller.failed && smaller.counterexamplePath !== null) return smaller
  return fc.check(
    kind.property(() => {}),
    { seed, path, endOnFailure: true },
  )
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** A path in few characters: `1:1:1:1:0` is `1x4:0`. */
function shortPath(path: string): string {
  return path.replace(/(?<=^|:)(\d+)(?::\1(?=:|$))+/g, (all, one: string) => {
    return `${one}x${all.split(':').length}`
  })
}

/** The batch of a key; undefined where it is none. */
export function batchOf(key: string): Batch | undefined {
  const [, kind, seed, path] =
    /^([a-z-]+)\.(-?\d+)\.(\d+(?:x\d+)?(?::\d+(?:x\d+)?)*)$/.exec(key) ?? []
  if (kind === undefined || seed === undefined || path === undefined) return undefined
  const whole = path.replace(/(\d+)x(\d+)/g, (_, one: string, count: string) =>
    new Array<string>(Number(count)).fill(one).join(':'),
  )
  return { kind, seed: Number(seed), count: 1_000, path: whole }
}
