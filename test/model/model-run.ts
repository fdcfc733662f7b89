/** A run of `npm run model`: how many sequences of which kind, what is printed, and whether all was well. */

import type { Batch, BatchResult } from './batch.ts'
import { batchOf } from './batch.ts'
import { runCrew } from './crew.ts'
import type { Kind } from './kind.ts'
import { KINDS } from './kinds.ts'

/** What to run. */
export interface ModelOptions {
  /** The program of a process (worker.ts). */
  readonly worker: string
  readonly jobs: number
  /** Sequences in memory. */
  readonly sequences: number
  /** Sequences in which the real tools take part. */
  readonly qemu: number
  readonly seed: number
  /** Goes on with one seed after the other for so long, whatever the numbers. */
  readonly soakMs?: number
  /** One kind alone. */
  readonly kind?: string
  readonly print: (line: string) => void
}

interface Sum {
  runs: number
  steps: number
  cpuMs: number
}

/** Runs everything; resolves to whether nothing failed. */
export async function runModel(options: ModelOptions): Promise<boolean> {
  const { print, soakMs, seed, jobs } = options
  const start = Date.now()
  const sums = new Map<string, Sum>()
  const notes = new Map<string, number>()
  let failures = 0
  const isOver = () => soakMs !== undefined && Date.now() - start >= soakMs
  const batches = batchesOf(options)
  const next = () => {
    const { value } = isOver() ? { value: undefined } : batches.next()
    return value as Batch | undefined
  }
  await runCrew(options.worker, jobs, next, (result) => {
    sumUp(result, sums, notes)
    if (result.failure === undefined) return
    failures++
    print(failureText(result.failure))
  })
  const seconds = (Date.now() - start) / 1000
  for (const [name, { runs, steps, cpuMs }] of [...sums].sort()) {
    const each = (cpuMs / Math.max(1, runs)).toFixed(1)
    print(`${name.padEnd(16)} ${runs} sequences, ${steps} steps, ${each} ms of processor time each`)
  }
  print(
    [...notes]
      .sort()
      .map(([name, count]) => `${name} ${count}`)
      .join(', '),
  )
  const all = [...sums.values()].reduce((sum, { runs }) => sum + runs, 0)
  const rate = (all / Math.max(seconds, 0.001)).toFixed(0)
  const time = `${seconds.toFixed(0)} s, ${rate} a second, ${jobs} ${jobs === 1 ? 'process' : 'processes'}`
  print(`${all} sequences, seed ${seed}, ${failures} failures; ${time}`)
  return failures === 0
}

/** Replays a key; resolves to whether it passes now, or to undefined where it is no key. */
export async function replayModel(
  key: string,
  worker: string,
  print: (line: string) => void,
): Promise<boolean | undefined> {
  let batch = batchOf(key)
  if (batch === undefined || !KINDS.has(batch.kind)) return undefined
  let isGood = true
  const next = () => {
    const given = batch
    batch = undefined
    return given
  }
  await runCrew(worker, 1, next, ({ failure, runs }) => {
    isGood = failure === undefined && runs > 0
    print(failure === undefined ? `${key} passes` : failureText(failure))
  })
  return isGood
}

function failureText({ key, text }: NonNullable<BatchResult['failure']>): string {
  return `FAILED npm run model -- --replay ${key}\n${text}`
}

function sumUp(result: BatchResult, sums: Map<string, Sum>, notes: Map<string, number>): void {
  const { batch, runs, cpuMs } = result
  const sum = sums.get(batch.kind) ?? { runs: 0, steps: 0, cpuMs: 0 }
  sum.runs += runs
  sum.cpuMs += cpuMs
  sums.set(batch.kind, sum)
  for (const [name, count] of Object.entries(result.notes)) {
    if (name === 'step') sum.steps += count
    else notes.set(name, (notes.get(name) ?? 0) + count)
  }
}

/** All batches, those of all kinds mixed, so that a run that is ended early has done some of each. */
function* batchesOf(options: ModelOptions): Generator<Batch> {
  for (let seed = options.seed; ; seed++) {
    const all = [...KINDS.values()]
      .filter(({ name }) => options.kind === undefined || name === options.kind)
      .flatMap((kind, _, kinds) => batchesOfKind(kind, kinds, { ...options, seed }))
    all.sort((a, b) => a.place - b.place)
    for (const { batch } of all) yield batch
    if (options.soakMs === undefined || all.length === 0) return
  }
}

function batchesOfKind(kind: Kind, kinds: readonly Kind[], options: ModelOptions) {
  const { name, share, withQemu, batch: size } = kind
  const wanted = withQemu ? options.qemu : options.sequences
  const whole = kinds.reduce((sum, one) => sum + (one.withQemu === withQemu ? one.share : 0), 0)
  const count = Math.ceil((wanted * share) / whole)
  const length = Math.ceil(count / size)
  return Array.from({ length }, (_, index) => ({
    place: index / length,
    batch: {
      kind: name,
      seed: seedOf(options.seed, name, index),
      count: Math.min(size, count - index * size),
    },
  }))
}

/** A seed for a batch, another one for each. */
function seedOf(seed: number, kind: string, index: number): number {
  let hash = seed | 0
  for (const part of `${kind}.${index}`) hash = (Math.imul(hash, 31) + part.charCodeAt(0)) | 0
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) | 0
}
