/** A file that ends within its last cluster: what the rest of that is said to be. */

import { expect, test } from 'vitest'
import { Gate, heldParts, openChain } from '../../src/chain/index.ts'
import { createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'

const CLUSTER = 64 * 1024

test('it is held as zeroes, from wherever it is asked, and is not taken for what follows', async () => {
  const files = new DiskFiles()
  const gate = new Gate({ allowAll: true })
  const device = await FileDevice.open(files, '/disk', { create: 'new', growable: true })
  await createQcow2(device, { size: 3 * CLUSTER, clusterSize: CLUSTER })
  await device.close()
  {
    await using chain = await openChain('/disk', { files, gate, writable: true })
    await chain.device.write(0, new Uint8Array(8192).fill(1))
  }
  const { length } = files.contents('/disk')
  expect(length % CLUSTER).toBe(8192)
  await using chain = await openChain('/disk', { files, gate })
  for (const first of [0, 8192, 20_000]) {
    const parts = heldParts([chain.layers[0]!])
    const found: [string, number][] = []
    for (let at = first; at < chain.device.size; ) {
      const [part] = await parts(at, chain.device.size - at)
      if (part === undefined) throw new Error(`nothing is said of ${at}`)
      expect(part.offset).toBe(at)
      at += part.length
      const last = found.at(-1)
      if (last?.[0] === part.kind) last[1] = at
      else found.push([part.kind, at])
    }
    expect(found).toEqual([
      ...(first === 0 ? [['data', 8192]] : []),
      ['zero', CLUSTER],
      ['skip', 3 * CLUSTER],
    ])
  }
})
