/** Bitmaps of a disk that gets another size. */

import { expect, it } from 'vitest'
import { BitmapSession } from '../../src/qcow2/metadata/bitmap-session.ts'
import { describeWithQemu, qemuIoOk } from '../support/qemu.ts'
import { BitmapImage } from './bitmap-image.ts'
import {
  expectClean,
  infoOf,
  MIB,
  makeImage,
  rangesByQemu,
  rangesByUs,
  TIB,
} from './bitmap-steps.ts'

describeWithQemu('resizing', () => {
  /** Plans, places, switches and adopts, as a structural verb does, in the middle of a session. */
  async function resize(image: BitmapImage, session: BitmapSession, size: number): Promise<void> {
    const old = image.source.directory
    const plan = await session.planResize(size)
    const offset = await image.take(Math.ceil(plan.bytes.length / image.clusterSize))
    await image.write(offset, plan.bytes)
    await image.flush()
    await image.switchTo(size, offset, plan.bytes.length)
    session.adopt(plan, offset)
    for (const run of plan.freed) image.free(run.offset, run.clusterCount)
    image.free(old.directoryOffset, Math.ceil(old.directorySize / image.clusterSize))
  }

  const bitmaps = [
    { name: 'fine', granularity: 512 },
    { name: 'coarse' },
    { name: 'off', granularity: 512, disabled: true },
  ]

  it('to a larger disk keeps every bit, and the new bytes are clean', async () => {
    const path = await makeImage({ size: 10 * MIB, bitmaps })
    await qemuIoOk(path, ['write 1M 1M'])
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    session.record(5 * MIB, 512)
    await resize(image, session, 500 * MIB)
    session.record(400 * MIB, 512)
    await session.store()
    image.save(path)
    await expectClean(path)
    expect(await infoOf(path)).toEqual({ fine: ['auto'], coarse: ['auto'], off: [] })
    expect(await rangesByQemu(path, 'fine')).toEqual([
      { offset: MIB, length: MIB },
      { offset: 5 * MIB, length: 512 },
      { offset: 400 * MIB, length: 512 },
    ])
    expect(await rangesByQemu(path, 'off')).toEqual([])
  })

  it('to a smaller disk cuts the bits off, and they do not come back when it grows again', async () => {
    const path = await makeImage({ size: 500 * MIB, bitmaps })
    await qemuIoOk(path, ['write 0 512', 'write 200M 64k', 'write 490M 1M'])
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await session.markInUse()
    session.record(100 * MIB, 512)
    session.record(300 * MIB, MIB)
    await resize(image, session, 200 * MIB)
    await session.store()
    image.save(path)
    await expectClean(path)
    const kept = [
      { offset: 0, length: 512 },
      { offset: 100 * MIB, length: 512 },
    ]
    expect(await rangesByQemu(path, 'fine')).toEqual(kept)
    const again = await BitmapSession.open(image, image.source)
    await again.markInUse()
    await resize(image, again, 500 * MIB)
    await again.store()
    image.save(path)
    await expectClean(path)
    expect(await rangesByQemu(path, 'fine')).toEqual(kept)
    expect(await rangesByUs(image, 'fine')).toEqual(kept)
  })

  it('changes nothing on disk before the switch', async () => {
    const path = await makeImage({ size: 500 * MIB, bitmaps })
    await qemuIoOk(path, ['write 0 512', 'write 200M 64k'])
    const image = BitmapImage.load(path)
    const before = image.device.toBytes()
    const session = await BitmapSession.open(image, image.source)
    await session.planResize(100 * MIB)
    const { length } = before
    expect(image.log.every(({ offset }) => offset >= length)).toBe(true)
  })

  it('refuses a disk for which a bitmap would take more than 512 MiB', async () => {
    const path = await makeImage({ size: MIB, bitmaps })
    const image = BitmapImage.load(path)
    const session = await BitmapSession.open(image, image.source)
    await expect(session.planResize(4 * TIB)).rejects.toMatchObject({
      name: 'UsageError',
      code: 'BITMAP_RESIZE',
      message: "bitmap 'fine' would take more than 512 MiB for a disk of 4 TiB",
    })
    await expect(session.planResize(0)).rejects.toMatchObject({ code: 'BITMAP_RESIZE' })
    expect(image.log).toEqual([])
  })
})
