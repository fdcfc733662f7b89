/** Which clusters the entries of an L2 table refer to, as structural verbs count them. */

import { expect, test } from 'vitest'
import { geometryOf } from '../../src/qcow2/layout/geometry.ts'
import type { Qcow2State } from '../../src/qcow2/metadata/state.ts'
import type { Transaction } from '../../src/qcow2/metadata/transaction.ts'
import { changeReferences } from '../../src/qcow2/table-tree.ts'

test('zero clusters that have a place are counted where they follow one that has none', async () => {
  const geometry = geometryOf({ clusterBits: 10, refcountOrder: 4, extendedL2: false })
  const table = new Uint8Array(geometry.clusterSize)
  const view = new DataView(table.buffer)
  // Without a place; in cluster 1; in cluster 2; nothing; in cluster 1 as data.
  for (const [index, lo] of [1, 0x401, 0x801, 0, 0x400].entries()) view.setUint32(index * 8 + 4, lo)
  const counted: [number, number][] = []
  const transaction = {
    changeNow(first: number, count: number) {
      counted.push([first, count])
      return count
    },
  }
  const state = { geometry, externalData: false }
  await changeReferences(
    state as unknown as Qcow2State,
    transaction as unknown as Transaction,
    table,
    1,
  )
  expect(counted).toEqual([
    [1, 2],
    [1, 1],
  ])
})
