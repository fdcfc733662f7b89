/**
 * Names of files that are under construction: what a process that was killed leaves has such a name, and nobody else's file has.
 * Every file that is built beside its place gets its name here, but for those that a journal knows (checkpoints).
 */

/** Whose work a temporary file is: an image (or anything else of any size), a small file, or a step of a checkpoint verb. */
export type TemporaryKind = 'image' | 'small-file' | 'checkpoint'

const SUFFIX = '.cowpoint-new'
const PATTERNS: readonly (readonly [TemporaryKind, RegExp])[] = [
  ['image', /\.[0-9a-f]{12}\.cowpoint-new$/],
  ['small-file', /\.[0-9a-z]+-[0-9a-z]+\.tmp$/],
  ['checkpoint', /\.[0-9a-f]{8}\.cowpoint-part$/],
]

/** A name beside `path` that nobody has: what is built there is renamed when it is whole. */
export function temporaryPath(path: string): string {
  // It need not be secret, since the file must be new; node:crypto would take 5 ms to load.
  const number = Math.floor(Math.random() * 2 ** 48)
  return `${path}.${number.toString(16).padStart(12, '0')}${SUFFIX}`
}

/** What kind of temporary file has that name; undefined for a name of any other kind. */
export function temporaryKind(name: string): TemporaryKind | undefined {
  return PATTERNS.find(([, pattern]) => pattern.test(name))?.[0]
}
