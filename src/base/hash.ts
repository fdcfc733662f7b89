/** Hashes as node:crypto has them, which is loaded when one is first made: that takes longer than most commands run. */

import type { Hash } from 'node:crypto'
import { loadPackage } from './load-package.ts'

/** A hash that is fed with `update` and read with `digest`; the names are Node's. */
export function createHash(algorithm: string): Hash {
  return (loadPackage('node:crypto') as typeof import('node:crypto')).createHash(algorithm)
}
