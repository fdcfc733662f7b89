/**
 * `cowpoint/testing`: chains of images in one line, and matchers for `expect.extend` of vitest or jest that state what a disk, a
 * chain or its checkpoints are.
 */

import { toHaveCheckpoint } from './checkpoint-matcher.ts'
import { toBeCleanImage, toHaveBackingChain, toReadAs, toShareClustersWith } from './matchers.ts'

export { type BuildOptions, type BuiltChain, buildChain } from './build-chain.ts'
export type { ExpectedCheckpoint } from './checkpoint-matcher.ts'
export type { ExpectedContent, MatcherResult } from './matchers.ts'
export type { ViewName } from './views.ts'

/** For `expect.extend(matchers)`. */
export const matchers = {
  toBeCleanImage,
  toHaveBackingChain,
  toHaveCheckpoint,
  toReadAs,
  toShareClustersWith,
}

/** The parameters of a matcher behind what `expect` is given. */
type Claim<F> = F extends (received: never, ...rest: infer Rest) => unknown
  ? (...rest: Rest) => Promise<void>
  : never

/**
 * What `expect(…)` has once it was extended, for TypeScript:
 * `declare module 'vitest' { interface Matchers<T> extends CowpointMatchers {} }`.
 */
export type CowpointMatchers = {
  readonly [Name in keyof typeof matchers]: Claim<(typeof matchers)[Name]>
}
