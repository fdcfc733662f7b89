/** Going back where a layer lies between that belongs to no checkpoint any more. */

import { expect, test } from 'vitest'
import { createCheckpoint, removeCheckpoint, revertTo } from '../../src/checkpoint/index.ts'
import { CheckpointModel } from '../support/checkpoint-model.ts'

async function create(model: CheckpointModel, name: string): Promise<void> {
  await createCheckpoint(await model.catalogue(), { name, kind: 'external' })
  model.noteCheckpoint(name)
}

test.each([false, true])(
  'an empty layer over a hidden one is not what the checkpoint below both is (discard: %s)',
  async (discard) => {
    const model = await CheckpointModel.create([{ size: 64 * 1024, clusterSize: 4096 }])
    await create(model, 'a')
    await model.write(0, 4096, new Uint8Array(9000).fill(7))
    await create(model, 'b')
    await model.write(0, 0, new Uint8Array(500).fill(8))
    // Two stand on b now, so that its layer stays when it is deleted.
    const kept = [...model.current]
    await revertTo(await model.catalogue(), { checkpoint: 'b', keepAs: 'other' })
    model.noteCheckpoint('other', kept)
    model.current = [...(model.checkpoints.get('b') ?? [])]
    await removeCheckpoint(await model.catalogue(), 'b', { direction: 'keep' })
    model.checkpoints.delete('b')
    await model.checkViews('without b')

    const hidden = [...model.current]
    const { isDone } = await revertTo(await model.catalogue(), {
      checkpoint: 'a',
      discard,
      keepAs: 'branch',
    })
    expect(isDone).toBe(true)
    model.current = [...(model.checkpoints.get('a') ?? [])]
    if (!discard) model.noteCheckpoint('branch', hidden)
    await model.checkViews('back at a')
  },
)
