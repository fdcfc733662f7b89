/** A disk that libvdsk wore out, by the model of its write path: adopted, mended and used for checkpoints from then on. */

import { readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { buildChain, matchers } from '../../src/testing/index.ts'
import { LibvdskDisk } from '../support/libvdsk-writer.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

expect.extend(matchers)

test('a disk that libvdsk wore out is adopted and mended, and its snapshots become checkpoints', async () => {
  const cwd = tempFolder()
  const { active } = await buildChain(
    'disk 4M cluster_size=4k 0+1M=0x11 @first 512k+1M=0x22 @second',
    { folder: cwd },
  )
  const disk = new LibvdskDisk(readFileSync(active))
  for (let at = 0; at < 64; at++) disk.write(at * 40_000, new Uint8Array(10_000).fill(0x33))
  writeFileSync(active, disk.bytes)
  const views = [
    { image: active, snapshot: 'first' },
    { image: active, snapshot: 'second' },
  ]
  const now = new Uint8Array(4 * 1024 * 1024).fill(0x11, 0, 1 << 20).fill(0x22, 1 << 19, 3 << 19)
  for (let at = 0; at < 64; at++) now.fill(0x33, at * 40_000, at * 40_000 + 10_000)
  await expect(active).toReadAs(now)
  await expect(active).not.toBeCleanImage()

  const adopted = await runCli(['checkpoint', 'adopt', '--repair', 'disk.qcow2'], { cwd })
  expect(adopted).toMatchObject({ status: 0, stderr: '' })
  await expect(active).toBeCleanImage()
  await expect(active).toReadAs(now)
  await expect(views[0]!).toReadAs('0+1M=0x11')
  await expect(views[1]!).toReadAs('0+1M=0x11 512k+1M=0x22')
  await expect(active).toHaveCheckpoint('second', {
    kind: 'internal',
    parent: 'first',
    isCurrent: true,
  })

  for (const words of [
    ['restore', 'first', '--keep-as', 'worn'],
    ['delete', 'second'],
  ]) {
    const run = await runCli(['checkpoint', ...words, 'disk.qcow2'], { cwd })
    expect(run).toMatchObject({ status: 0, stderr: '' })
  }
  await expect(active).toReadAs('0+1M=0x11')
  await expect({ image: active, snapshot: 'worn' }).toReadAs(now)
  await expect(active).toBeCleanImage()
})
