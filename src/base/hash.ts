/** Hashes and random bytes as node:crypto has them, which is loaded when it is first used: that takes longer than most commands run. */

import type { Hash } from 'node:crypto'
import { loadPackage } from './load-package.ts'

/** A hash that is fed with `update` and read with `digest`; the names are Node's. */
export function createHash(algorithm: string): Hash {
  return crypto().createHash(algorithm)
}

/** The SHA-256 of `text` in UTF-8, as hexadecimal digits. */
export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** So many random bytes, as hexadecimal digits. */
export function randomDigits(byteCount: number): string {
  return crypto().randomBytes(byteCount).toString('hex')
}

function crypto(): typeof import('node:crypto') {
  return loadPackage('node:crypto') as typeof import('node:crypto')
}
