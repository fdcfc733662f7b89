/**
 * Thousands of snapshots come and go, and the file stays as large as it was after the first: nothing leaks, and
 * what is freed is taken again. COWPOINT_CYCLES says how many; 10000 take about half a minute.
 */

import { expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

const CYCLES = Number(process.env.COWPOINT_CYCLES ?? '1500')

async function soundSize(device: MemoryDevice): Promise<number> {
  const report = await checkImage(device.clone())
  expect([report.corruptions, report.checkErrors, report.leaks]).toEqual([0, 0, 0])
  return device.size
}

test.each([
  ['4 KiB clusters', { clusterSize: 4096 }],
  ['512 B clusters', { clusterSize: 512, refcountBits: 8 }],
] as const)(
  'snapshots taken, written over and deleted in turn keep the file flat, with %s',
  async (_name, options) => {
    const device = new MemoryDevice(0, { growable: true })
    await createQcow2(device, { size: 128 * 1024, ...options })
    const image = await Qcow2Image.open(device, { writable: true })
    await image.write(0, new Uint8Array(96 * 1024).fill(1))
    await image.flush()
    let settled = 0
    const rounds = options.clusterSize === 512 ? CYCLES / 5 : CYCLES
    for (let round = 0; round < rounds; round++) {
      const snapshot = await image.createSnapshot({ name: `round ${round}` })
      const at = (round * 7919) % (120 * 1024)
      await image.write(at, new Uint8Array(5000).fill(round))
      await image.deleteSnapshot(snapshot)
      if (round === 50) settled = device.size
      if (round > 50 && device.size > settled * 1.5) {
        expect.fail(`file grew from ${settled} to ${device.size} bytes by cycle ${round}`)
      }
      if (round % 1000 === 999) await image.flush()
    }
    await image.close()
    expect(await soundSize(device)).toBeLessThanOrEqual(settled * 1.25)
  },
  300_000,
)

test('a ladder of snapshots that is taken down again, oldest, newest or middle first, leaves no trace', async () => {
  const device = new MemoryDevice(0, { growable: true })
  await createQcow2(device, { size: 128 * 1024, clusterSize: 4096 })
  const image = await Qcow2Image.open(device, { writable: true })
  await image.write(0, new Uint8Array(128 * 1024).fill(1))
  await image.flush()
  let settled = 0
  for (let round = 0; round < 30; round++) {
    for (let step = 0; step < 12; step++) {
      await image.createSnapshot({ name: `${round}/${step}` })
      await image.write(((round * 12 + step) * 4099) % 120_000, new Uint8Array(6000).fill(step))
      if (step === 7) await image.applySnapshot(image.snapshots[3]!)
    }
    while (image.snapshots.length > 0) {
      const place = [0, image.snapshots.length - 1, Math.floor(image.snapshots.length / 2)][
        round % 3
      ]!
      await image.deleteSnapshot(image.snapshots[place]!)
    }
    await image.flush()
    if (round === 2) settled = device.size
  }
  await image.close()
  expect(await soundSize(device)).toBeLessThanOrEqual(settled * 1.1)
})
