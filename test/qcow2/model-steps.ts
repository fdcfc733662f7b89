/**
 * Random steps for an image and for its model. A step is small numbers only, so that fast-check can make it
 * smaller; where it lands depends on the disk as it then is.
 */

import fc from 'fast-check'
import type { Qcow2Image } from '../../src/qcow2/index.ts'
import type { ModelDisk } from '../support/model-disk.ts'
import { type Shape, stamped } from './model-geometry.ts'

const REQUESTS = ['write', 'zero', 'unmap', 'discard', 'compressed', 'read', 'flush'] as const
/** What a step can do besides requests. */
export const VERBS = [
  'snapshot',
  'vm-snapshot',
  'apply',
  'delete',
  'rename',
  'grow',
  'shrink',
  'amend',
  'compact',
  'bitmap',
  'bitmap',
  'map',
  'reopen',
  'audit',
] as const

/** One request. `at` and `length` are shares of what there is, in ten-thousandths. */
export interface Request {
  readonly kind: (typeof REQUESTS)[number]
  readonly at: number
  readonly length: number
  readonly align: 0 | 1 | 2
  readonly seed: number
}

/** One step: a request, a verb, or requests at the same time. */
export type Step =
  | { readonly request: Request }
  | { readonly verb: (typeof VERBS)[number]; readonly pick: number }
  | { readonly batch: readonly BatchItem[]; readonly near: boolean }

/** What a batch is made of: requests, and verbs that leave the size of the disk as it is. */
export type BatchItem = Request | { readonly kind: 'snapshot' | 'apply' | 'delete' }

const requestArbitrary: fc.Arbitrary<Request> = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', ...REQUESTS),
  at: fc.nat(9999),
  length: fc.nat(9999),
  align: fc.constantFrom(0, 1, 2, 2 as const),
  seed: fc.integer({ min: 0, max: 250 }),
})

const batchRequest = fc.oneof(
  { arbitrary: requestArbitrary, weight: 9 },
  {
    arbitrary: fc.record({ kind: fc.constantFrom('snapshot', 'apply', 'delete' as const) }),
    weight: 2,
  },
)

const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { arbitrary: fc.record({ request: requestArbitrary }), weight: 8 },
  {
    arbitrary: fc.record({ verb: fc.constantFrom(...VERBS), pick: fc.nat(99) }),
    weight: 3,
  },
  {
    arbitrary: fc.record({
      batch: fc.array(batchRequest, { minLength: 2, maxLength: 4 }),
      near: fc.boolean(),
    }),
    weight: 2,
  },
)

/** Sequences of 20 to 60 steps. */
export const stepsArbitrary: fc.Arbitrary<readonly Step[]> = fc.array(stepArbitrary, {
  ...{ minLength: 20, maxLength: 60, size: 'max' },
})

/** Sequences of 8 to 20 steps. */
export const fewStepsArbitrary: fc.Arbitrary<readonly Step[]> = fc.array(stepArbitrary, {
  ...{ minLength: 8, maxLength: 20, size: 'max' },
})

/** A range of guest bytes. */
export interface Range {
  readonly offset: number
  readonly length: number
}

/** What of a shape decides where requests land. */
export type ClusterShape = Pick<Shape, 'clusterSize' | 'extendedL2' | 'small'>

/** The windows of a large disk in which something is done; a small one is a single window. */
export function windowsOf(size: number, shape: ClusterShape): Range[] {
  const { clusterSize, small = false } = shape
  const span = small ? Math.max(16 * 1024, 2 * clusterSize) : Math.max(256 * 1024, 6 * clusterSize)
  if (size <= 3 * span) return [{ offset: 0, length: size }]
  const reach = (clusterSize / (shape.extendedL2 ? 16 : 8)) * clusterSize
  const starts = [0, Math.max(0, reach - span / 2), size - span]
  return starts
    .filter((offset) => offset + 1 < size)
    .map((offset) => ({ offset, length: Math.min(span, size - offset) }))
}

/** Where a request lands on the disk. */
export function rangeOf(request: Request, size: number, shape: ClusterShape, near = false): Range {
  const { clusterSize } = shape
  const windows = windowsOf(size, shape)
  const window = windows[request.seed % windows.length] as Range
  const unit = request.kind === 'compressed' ? clusterSize : [1, 512, clusterSize][request.align]!
  const span = near ? Math.min(window.length, 5 * clusterSize) : window.length
  const from = window.offset + Math.floor((request.at / 10_000) * span)
  const offset = from - (from % unit)
  if (request.kind === 'compressed') {
    return { offset, length: Math.min(clusterSize, size - offset) }
  }
  const longest = Math.min(size - offset, Math.max(4 * clusterSize, (shape.small ? 16 : 64) * 1024))
  const wanted = Math.floor((request.length / 10_000) ** 2 * longest) + 1
  const length = Math.min(size - offset, Math.ceil(wanted / unit) * unit)
  // Requests that reach the end exactly are a case of their own.
  return { offset, length: request.seed % 11 === 0 ? Math.min(longest, size - offset) : length }
}

/** The bytes of a write; compressed ones mostly compress. */
export function bytesOf(request: Request, length: number): Uint8Array {
  const bytes = stamped(request.seed, length)
  if (request.kind === 'compressed' && request.seed % 5 === 0) {
    let state = request.seed + 1
    for (let at = 0; at < length; at++) {
      state = (state * 1_103_515_245 + 12_345) & 0x7fffffff
      bytes[at] = state >>> 16
    }
  }
  return bytes
}

/** Does a request to the image; a read gives its bytes. */
export async function perform(
  image: Qcow2Image,
  request: Request,
  { offset, length }: Range,
): Promise<Uint8Array | undefined> {
  switch (request.kind) {
    case 'write':
      await image.write(offset, bytesOf(request, length))
      return undefined
    case 'compressed':
      await image.writeCompressed(offset, bytesOf(request, length))
      return undefined
    case 'zero':
    case 'unmap':
      await image.writeZeroes(offset, length, { mayDiscard: request.kind === 'unmap' })
      return undefined
    case 'discard':
      await image.discard(offset, length)
      return undefined
    case 'flush':
      await image.flush()
      return undefined
    case 'read': {
      const bytes = new Uint8Array(length).fill(0xee)
      await image.read(offset, bytes)
      return bytes
    }
  }
}

/** Does a request to the model. */
export function imagine(model: ModelDisk, request: Request, { offset, length }: Range): void {
  if (request.kind === 'write' || request.kind === 'compressed') {
    model.write(offset, bytesOf(request, length))
  } else if (request.kind === 'zero' || request.kind === 'unmap') {
    model.zero(offset, length)
  } else if (request.kind === 'discard') {
    model.discard(offset, length)
  }
}
