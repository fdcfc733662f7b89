/** A small image of every kind of cluster, with a snapshot, by the builder, which is not our engine: what is damaged on purpose. */

import { type BuiltImage, buildImage, filled } from './image-builder.ts'

/** The image, and where its parts lie. */
export function builtImage(): BuiltImage {
  return buildImage({
    size: 64 * 4096,
    clusterBits: 12,
    content: {
      0: { kind: 'data', bytes: filled(1, 4096) },
      1: { kind: 'zero' },
      2: { kind: 'zero-allocated' },
      3: { kind: 'data', bytes: filled(3, 4096) },
    },
    snapshots: [
      {
        id: '1',
        name: 'one',
        content: { 0: { kind: 'shared' }, 5: { kind: 'data', bytes: filled(5, 4096) } },
      },
    ],
  })
}
