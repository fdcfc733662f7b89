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
  /** Tiny sizes: to see that everything works, not how fast. */
  readonly isSmoke: boolean
}

/** One job of `npm run bench -- <name>`: makes its inputs and gives out its comparisons, one after the other. */
export interface Bench {
  readonly name: string
  comparisons(setting: Setting): AsyncGenerator<Comparison>
}

const MIB = 1024 * 1024

/** The size in bytes that `mib` MiB stand for: a 256th of it, but at least 4 MiB, in the smoke form. */
export function scaled(setting: Setting, mib: number): number {
  return setting.isSmoke ? Math.min(mib, Math.max(4, mib / 256)) * MIB : mib * MIB
}

/** How many operations `count` stands for. */
export function scaledCount(setting: Setting, count: number): number {
  return setting.isSmoke ? Math.max(16, Math.floor(count / 256)) : count
}

/** A size as the table shows it. */
export function sizeText(size: number): string {
  if (size >= 1024 * MIB) return `${size / 1024 / MIB} GiB`
  return size >= MIB ? `${size / MIB} MiB` : `${size / 1024} KiB`
}
