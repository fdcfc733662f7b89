/** What a bench is, and what it is given: a folder, the sizes, the command and the library as they are built. */

import type { Comparison } from './pairs.ts'
import type { Tools } from './tools.ts'

/** What the benches work with. */
export interface Setting {
  /** Empty at the start; removed afterwards. */
  readonly folder: string
  readonly tools: Tools
  /** The library under test. */
  readonly library: typeof import('../src/index.ts')
  /** What all sizes and counts are multiplied by: 1 for the table, less to see how cost grows, next to nothing for a smoke test. */
  readonly scale: number
}

/** One job of `npm run bench -- <name>`: makes its inputs and gives out its comparisons, one after the other. */
export interface Bench {
  readonly name: string
  comparisons(setting: Setting): AsyncGenerator<Comparison>
}

const MIB = 1024 * 1024

/** The scale of a smoke test: everything is done, and no time means anything. */
export const SMOKE_SCALE = 1 / 256

/** Disks five times as large as those of the table: 10 GiB of data, 1,000 GiB of mapped clusters. */
export const LARGE_SCALE = 5

/** The size in bytes that `mib` MiB stand for; at least 4 MiB, or all where that is less. */
export function scaled({ scale }: Setting, mib: number): number {
  const least = Math.min(mib, 4)
  return Math.max(least, Math.floor(mib * scale)) * MIB
}

/** How many operations `count` stands for; larger disks get no more of them. */
export function scaledCount({ scale }: Setting, count: number): number {
  return Math.max(16, Math.floor(count * Math.min(1, scale)))
}

/** A size as the table shows it. */
export function sizeText(size: number): string {
  if (size >= 1024 * MIB) return `${size / 1024 / MIB} GiB`
  return size >= MIB ? `${size / MIB} MiB` : `${size / 1024} KiB`
}
