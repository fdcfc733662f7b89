/**
 * Random trees of images and random steps for them. Everything is small numbers, so that fast-check can make a failure
 * smaller; what they mean depends on the tree as it then is.
 */

import fc from 'fast-check'
import type { CreateOptions } from '../../src/qcow2/index.ts'
import { numbers } from './worn-image.ts'

const KIB = 1024

/** What can be done. */
export const VERBS = [
  ...(['session', 'session', 'session', 'session', 'session'] as const),
  ...(['snapshot', 'snapshot', 'apply', 'apply', 'delete'] as const),
  ...(['commit', 'commit', 'commit', 'rebase', 'rebase', 'rebase', 'rename', 'stream'] as const),
  ...(['compact', 'compact', 'grow', 'shrink', 'amend', 'amend'] as const),
  ...([
    'bitmap',
    'bitmap',
    'bitmap',
    'bitmap',
    'relocate',
    'convert',
    'overlay',
    'overlay',
  ] as const),
] as const

/** One step; the numbers choose among what there is. */
export interface ChainStep {
  readonly verb: (typeof VERBS)[number]
  readonly file: number
  readonly a: number
  readonly b: number
  readonly c: number
}

/** How a layer is laid out, and which earlier one it stands on. */
export interface LayerShape {
  readonly options: Omit<CreateOptions, 'size'>
  readonly size: number
  readonly parent: number
}

/** A tree before the first step: the first file is raw or not, the others stand on one another. */
export interface TreeShape {
  readonly rawBase: boolean
  readonly layers: readonly LayerShape[]
}

/** Layouts of one layer. */
export const layerArbitrary: fc.Arbitrary<LayerShape> = fc
  .record({
    cluster: fc.constantFrom(512, 1 * KIB, 4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB),
    version: fc.constantFrom(3 as const, 3 as const, 3 as const, 2 as const),
    refcountBits: fc.constantFrom(16, 16, 16, 1, 2, 4, 8, 32, 64),
    extendedL2: fc.boolean(),
    lazyRefcounts: fc.boolean(),
    compressionType: fc.constantFrom('zlib' as const, 'zstd' as const),
    sectors: fc.integer({ min: 60, max: 400 }),
    parent: fc.nat(3),
  })
  .map(({ cluster, version, sectors, parent, ...rest }) => ({
    options: {
      clusterSize: cluster,
      version,
      ...(version === 2 ? {} : { ...rest, extendedL2: rest.extendedL2 && cluster >= 16 * KIB }),
    },
    size: sectors * 512 * (cluster > 16 * KIB ? 2 : 1),
    parent,
  }))

/** Trees of 1 to 8 files. */
export const treeArbitrary: fc.Arbitrary<TreeShape> = fc.record({
  rawBase: fc.boolean(),
  layers: fc.array(layerArbitrary, { minLength: 1, maxLength: 8, size: 'max' }),
})

/** Sequences of steps. */
export const chainStepsArbitrary: fc.Arbitrary<readonly ChainStep[]> = fc.array(
  fc.record({
    verb: fc.constantFrom(...VERBS),
    file: fc.nat(9999),
    a: fc.nat(9999),
    b: fc.nat(9999),
    c: fc.nat(9999),
  }),
  { minLength: 12, maxLength: 32, size: 'max' },
)

/** A request of a session. */
export interface ChainRequest {
  readonly kind: 'write' | 'zero' | 'unmap' | 'discard' | 'compressed' | 'flush'
  readonly offset: number
  readonly length: number
  readonly bytes: Uint8Array
}

const KINDS = [
  'write',
  'write',
  'write',
  'zero',
  'unmap',
  'discard',
  'compressed',
  'flush',
] as const

/** Some requests to a disk, by the numbers of a step. */
export function requestsOf(
  { a, b, c }: ChainStep,
  disk: { readonly size: number; readonly clusterSize: number },
): ChainRequest[] {
  const random = numbers(a + 10_000 * b + 7 * c)
  const pick = (limit: number) => Math.floor(random() * limit)
  const { size, clusterSize } = disk
  const requests: ChainRequest[] = []
  if (size === 0) return requests
  for (let count = 1 + pick(5); count > 0; count--) {
    const kind = KINDS[pick(KINDS.length)] ?? 'write'
    const unit = kind === 'compressed' ? clusterSize : ([1, 512, clusterSize][pick(3)] ?? 512)
    const offset = Math.floor(pick(size) / unit) * unit
    const wanted = kind === 'compressed' ? clusterSize : Math.ceil(random() ** 2 * 6) * pick(9000)
    const length = Math.min(size - offset, Math.max(1, Math.ceil(wanted / unit) * unit))
    requests.push({ kind, offset, length, bytes: content(length, pick(1000)) })
  }
  return requests
}

/** Bytes that tell where they belong; some all zero, some that do not compress. */
export function content(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  if (seed % 9 === 0) return bytes
  const random = numbers(seed)
  if (seed % 5 === 0) return bytes.map(() => Math.floor(random() * 256))
  bytes.fill((seed % 250) + 1)
  for (let at = 0; at < length; at += 128) bytes[at] = (seed * 31 + (at >>> 7)) & 0xff
  return bytes
}
