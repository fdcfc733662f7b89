/** A look at all of a disk, which reads tables past the cache, tells what is in memory only as well as what is on disk only. */

import { expect, test } from 'vitest'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

const CLUSTER = 512
/** What one L2 table reaches. */
const REACH = (CLUSTER / 8) * CLUSTER

test('changes that no flush wrote are told with those that lie on disk', async () => {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: 4 * REACH, clusterSize: CLUSTER })
  const before = await Qcow2Image.open(file, { writable: true })
  for (const table of [0, 1, 3]) {
    await before.write(table * REACH, new Uint8Array(CLUSTER).fill(1))
  }
  await before.flush()
  await using image = await Qcow2Image.open(file, { writable: true })
  await image.write(REACH + 2 * CLUSTER, new Uint8Array(CLUSTER).fill(2))
  await image.write(2 * REACH, new Uint8Array(2 * CLUSTER).fill(3))
  await image.writeZeroes(3 * REACH, CLUSTER)
  const runs = (await image.mappings(0, 4 * REACH)).map(({ kind, length }) => [kind, length])
  const rest = (used: number) => ['unallocated', REACH - used * CLUSTER]
  expect(runs).toEqual([
    ...[['normal', CLUSTER], rest(1)],
    ...[['normal', CLUSTER], ['unallocated', CLUSTER], ['normal', CLUSTER], rest(3)],
    ...[['normal', 2 * CLUSTER], rest(2)],
    ...[['zero', CLUSTER], rest(1)],
  ])
})
