/** Random disks with checkpoints and random steps for them, as small numbers, so that fast-check can make a failure smaller. */

import fc from 'fast-check'
import type { DiskShape } from '../support/checkpoint-model.ts'

const KIB = 1024

/** What can be done. */
export const VERBS = [
  ...(['write', 'write', 'write', 'create', 'create', 'create', 'restore', 'restore'] as const),
  ...(['delete', 'delete', 'delete', 'convert', 'rename', 'describe', 'prune', 'compact'] as const),
  ...(['adopt', 'purge', 'session'] as const),
] as const

/** One step; the seed chooses among what there is. */
export interface CheckpointStep {
  readonly verb: (typeof VERBS)[number]
  readonly seed: number
}

/** Layouts of one disk; a raw one has no internal snapshots. */
export const diskArbitrary: fc.Arbitrary<DiskShape> = fc
  .record({
    cluster: fc.oneof(
      { arbitrary: fc.constantFrom(512, 1 * KIB, 2 * KIB, 4 * KIB), weight: 60 },
      { arbitrary: fc.constantFrom(16 * KIB, 64 * KIB), weight: 15 },
      { arbitrary: fc.constant(2048 * KIB), weight: 1 },
    ),
    kind: fc.constantFrom('qcow2', 'qcow2', 'qcow2', 'qcow2', 'raw' as const, 'old' as const),
    refcountBits: fc.constantFrom(16, 16, 4, 8, 32, 64),
    extendedL2: fc.boolean(),
    compressionType: fc.constantFrom('zlib' as const, 'zstd' as const),
    sectors: fc.integer({ min: 16, max: 100 }),
  })
  .map(({ cluster, kind, sectors, ...rest }) => ({
    size: sectors * 512,
    ...(kind === 'raw' ? { isRaw: true } : { clusterSize: cluster }),
    ...(kind === 'old' ? { version: 2 as const } : {}),
    ...(kind === 'qcow2' ? { ...rest, extendedL2: rest.extendedL2 && cluster >= 16 * KIB } : {}),
  }))

/** One or two disks. */
export const disksArbitrary: fc.Arbitrary<readonly DiskShape[]> = fc.array(diskArbitrary, {
  minLength: 1,
  maxLength: 2,
})

/** Sequences of steps. */
export function checkpointSteps(
  minLength: number,
  maxLength: number,
): fc.Arbitrary<readonly CheckpointStep[]> {
  const step = fc.record({ verb: fc.constantFrom(...VERBS), seed: fc.nat(1_000_000) })
  return fc.array(step, { minLength, maxLength, size: 'max' })
}
