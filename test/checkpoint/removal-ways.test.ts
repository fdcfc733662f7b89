/** Which way a layer is taken out where its bytes alone do not say. */

import { expect, test } from 'vitest'
import { createCheckpoint, planRemoval } from '../../src/checkpoint/index.ts'
import { CheckpointModel } from '../support/checkpoint-model.ts'

const SIZE = 64 * 1024

test('where both ways move the same the layer is pulled up, which gives nothing back piece by piece', async () => {
  const model = await CheckpointModel.create([{ size: SIZE, clusterSize: 4096 }])
  for (const [name, length] of Object.entries({ a: 4096, b: 3 * 4096 })) {
    await model.write(0, 0, new Uint8Array(length).fill(name.charCodeAt(0)))
    await createCheckpoint(await model.catalogue(), { name, kind: 'external' })
    model.noteCheckpoint(name)
  }
  for (const at of [0, 20_480]) await model.write(0, at, new Uint8Array(4096).fill(9))
  const plan = await planRemoval(await model.catalogue(), 'b')
  const bytes = (plan.alternatives ?? []).map(({ bytesWritten }) => bytesWritten)
  expect(bytes).toEqual([8192, 8192, 0])
  expect(plan.steps[0]).toMatch(/^pull /)
})
