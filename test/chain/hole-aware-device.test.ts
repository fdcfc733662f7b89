import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { BlockDevice } from '../../src/block/index.ts'
import { holeAwareDevice, openChain } from '../../src/chain/index.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { suiteFolder } from '../support/temp.ts'

const MIB = 1024 * 1024

/** `[offset, length]` in KiB of what `device` calls data. */
async function dataOf(device: BlockDevice): Promise<[number, number][]> {
  const found: [number, number][] = []
  for (let at = 0; at < device.size; ) {
    for (const { offset, length, kind } of await device.extents(at, device.size - at)) {
      if (kind === 'data') found.push([offset / 1024, length / 1024])
      at = offset + length
    }
  }
  return found
}

describeWithQemu('clusters that were set aside and never written', () => {
  const folder = suiteFolder()
  const base = join(folder, 'base.qcow2')
  const top = join(folder, 'top.qcow2')

  it('are no data to whoever reads the disk, alone or under an overlay', async () => {
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', base, '16M'])
    await qemuIoOk(base, ['write -P 1 4M 64k'])
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top])
    await qemuIoOk(top, ['write -P 2 8M 128k', 'write -z 4M 4k'])
    await using chain = await openChain(base)
    expect(await dataOf(chain.device)).toEqual([[0, 16 * 1024]])
    const device = await holeAwareDevice(chain)
    expect(await dataOf(device)).toEqual([[4096, 64]])
    const bytes = new Uint8Array(MIB)
    await device.read(4 * MIB - 4096, bytes)
    expect([bytes[4095], bytes[4096], bytes[4096 + 65535], bytes[4096 + 65536]]).toEqual([
      0, 1, 1, 0,
    ])
    await using overlay = await openChain(top)
    // The overlay's cluster at 4 MiB holds the rest of the base's too.
    expect(await dataOf(await holeAwareDevice(overlay))).toEqual([
      [4096, 64],
      [8192, 128],
    ])
  })
})

describeWithQemu('a disk whose clusters were all written', () => {
  it('is read as it is', async () => {
    const path = join(suiteFolder(), 'disk.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', path, '4M'])
    await using chain = await openChain(path)
    expect(await holeAwareDevice(chain)).toBe(chain.device)
  })
})
