/** Adopting what the real qemu-img made, and what is told of checkpoints: changes, sizes, findings. */

import { renameSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  adoptImages,
  type CheckpointTree,
  createCheckpoint,
  diffCheckpoints,
  measureCheckpoints,
  revertTo,
  verifyCheckpoints,
} from '../../src/checkpoint/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { checkAll, disks, nodeCalled, reads, treeOf } from '../support/checkpoint-disks.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'

describeWithQemu('checkpoints are adopted and told', () => {
  test('adopt: what qemu-img made gets records that outlast its dates and names', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await qemuImgOk(['snapshot', '-c', 'inner', image])
    await qemuIoOk(image, ['write -P 20 0 64k'])
    const top = place.at('top.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-b', 'disk0.qcow2', '-F', 'qcow2', top])
    await qemuIoOk(top, ['write -P 21 0 64k'])
    const before = await treeOf(await place.find([top]))
    expect([...before.nodes.values()].map(({ isForeign }) => isForeign)).toEqual([true, true])
    await adoptImages(await place.find([top]))
    const after = await treeOf(await place.find([top]))
    expect(
      [...after.nodes.values()].map(({ name, kind, isForeign }) => [name, kind, isForeign]),
    ).toEqual([
      ['inner', 'internal', false],
      ['disk0', 'external', false],
    ])
    expect((await adoptImages(await place.find([top]))).isDone).toBe(false)
    expect(await qemuImgOk(['snapshot', '-l', image])).toContain('inner')
    await revertTo(await place.find([top]), { checkpoint: 'disk0' })
    await reads(top, 20)
    await checkAll(place)
  })

  test('adopt refuses an image with errors, and repairs it where that is asked for', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await qemuImgOk(['snapshot', '-c', 'one', image])
    await using file = await FileDevice.open(nodeFiles, image, { writable: true })
    const header = new Uint8Array(512)
    await file.read(0, header)
    const table = new DataView(header.buffer).getUint32(52)
    const entry = new Uint8Array(8)
    await file.read(table, entry)
    // The refcount of the first data cluster, 5: one too low.
    const block = new DataView(entry.buffer).getUint32(4)
    await file.write(block + 2 * 5, Uint8Array.from([0, 1]))
    await file.close()
    await expect(adoptImages(await place.find())).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    await adoptImages(await place.find(), { repair: true })
    await checkAll(place)
    expect((await nodeCalled(place, 'one')).isForeign).toBe(false)
  })

  test('diff tells what changed between checkpoints of any kind, and since', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a' })
    await qemuIoOk(image, ['write -P 30 1M 64k'])
    await createCheckpoint(await place.find(), { name: 'b', kind: 'external' })
    await qemuIoOk(image, ['write -P 31 2M 64k'])
    const changes = async (from: string, to?: string) => {
      const found: string[] = []
      for await (const { extents } of diffCheckpoints(await place.find(), { from, to })) {
        for (const { offset, length } of extents) found.push(`${offset >> 16}+${length >> 16}`)
      }
      return found
    }
    expect(await changes('a', 'b')).toEqual(['16+1'])
    expect(await changes('b')).toEqual(['32+1'])
    expect(await changes('a')).toEqual(['16+1', '32+1'])
  })

  test('sizes tell what nobody else reads', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a', kind: 'external' })
    await qemuIoOk(image, ['write -P 40 0 128k'])
    const catalogue = await place.find()
    const { survey, trees } = await catalogue.view()
    const sizes = await measureCheckpoints(catalogue, survey, trees[0] as CheckpointTree)
    expect([...sizes.values()]).toEqual([
      { exclusive: 128 * 1024, shared: 128 * 1024, reclaimable: 128 * 1024 },
    ])
  })

  test('verify tells a base that was written to, and a chain that is broken', async () => {
    const place = await disks()
    await createCheckpoint(await place.find(), { name: 'a', kind: 'external' })
    const frozen = place.at('disk0.a.qcow2')
    await qemuIoOk(frozen, ['write -P 50 1M 64k'])
    const codes = async () =>
      (await verifyCheckpoints(await place.find())).findings.map(
        ({ severity, code }) => `${severity} ${code}`,
      )
    expect(await codes()).toEqual(['warning BASE_CHANGED'])
    renameSync(frozen, place.at('gone'))
    expect((await codes()).join()).toContain('error BACKING_NOT_FOUND')
  })
})
