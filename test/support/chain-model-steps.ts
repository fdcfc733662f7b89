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
  ...([
    'commit',
    'commit',
    'commit',
    'rebase',
    'rebase',
    'rebase',
    'rename',
    'stream',
    'pull',
    'push',
  ] as const),
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
  /** Where guest data lies. */
  readonly data?: 'inside' | 'external' | 'external-raw'
}

/** A tree before the first step: the first file is raw or not, the others stand on one another. */
export interface TreeShape {
  readonly rawBase: boolean
  readonly layers: readonly LayerShape[]
}

function layerArbitrary(
  cluster: fc.Arbitrary<number>,
  sectors: fc.Arbitrary<number>,
): fc.Arbitrary<LayerShape> {
  return fc
    .record({
      cluster,
      version: fc.constantFrom(3 as const, 3 as const, 3 as const, 2 as const),
      refcountBits: fc.constantFrom(16, 16, 16, 1, 2, 4, 8, 32, 64),
      extendedL2: fc.boolean(),
      lazyRefcounts: fc.boolean(),
      compressionType: fc.constantFrom('zlib' as const, 'zstd' as const),
      data: fc.constantFrom(...INSIDE, 'external' as const, 'external-raw' as const),
      sectors,
      parent: fc.nat(3),
    })
    .map(({ cluster, version, sectors, parent, data, ...rest }) => ({
      options: {
        clusterSize: cluster,
        version,
        ...(version === 2 ? {} : { ...rest, extendedL2: rest.extendedL2 && cluster >= 16 * KIB }),
      },
      data: version === 2 ? 'inside' : data,
      size: sectors * 512 * (cluster > 16 * KIB ? 2 : 1),
      parent,
    }))
}

/** Data in a file of its own is the exception. */
const INSIDE = new Array<'inside'>(10).fill('inside')

/** Trees of 1 to 8 files. */
export const treeArbitrary: fc.Arbitrary<TreeShape> = treeOf(
  layerArbitrary(
    fc.constantFrom(512, 1 * KIB, 4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB),
    fc.integer({ min: 60, max: 400 }),
  ),
  8,
)

/** Trees of 1 to 4 small files, now and then with the largest clusters. */
export const smallTreeArbitrary: fc.Arbitrary<TreeShape> = treeOf(
  layerArbitrary(
    fc.oneof(
      { arbitrary: fc.constantFrom(512, 1 * KIB, 2 * KIB, 4 * KIB), weight: 100 },
      { arbitrary: fc.constantFrom(16 * KIB, 64 * KIB), weight: 20 },
      { arbitrary: fc.constant(2048 * KIB), weight: 1 },
    ),
    fc.integer({ min: 24, max: 120 }),
  ),
  4,
)

function treeOf(layer: fc.Arbitrary<LayerShape>, maxLength: number): fc.Arbitrary<TreeShape> {
  return fc.record({
    rawBase: fc.boolean(),
    layers: fc.array(layer, { minLength: 1, maxLength, size: 'max' }),
  })
}

/** Sequences of steps. */
export function chainSteps(
  minLength: number,
  maxLength: number,
): fc.Arbitrary<readonly ChainStep[]> {
  const number = fc.nat(9999)
  const verb = fc.constantFrom(...VERBS)
  const step = fc.record({ verb, file: number, a: number, b: number, c: number })
  return fc.array(step, { minLength, maxLength, size: 'max' })
}

/** Sequences of 12 to 32 steps. */
export const chainStepsArbitrary = chainSteps(12, 32)

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
