/** Several processes at one image at the same time: never more than one writer, and a clean image at the end. */

import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lockRace } from '../support/lock-race.ts'
import { describeWithQemu, qemuImgOk } from '../support/qemu.ts'
import { runBuiltCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** Seconds that the race takes; `npm run locks -- 60` runs it longer. */
const SECONDS = 4

describeWithQemu('several processes at one image', () => {
  test('of many commands at a time each one succeeds or is told who was first', async () => {
    const cwd = tempFolder()
    await qemuImgOk(['create', '-q', '-f', 'qcow2', join(cwd, 'disk'), '1M'])
    const runs = Array.from({ length: 8 }, (_, index) =>
      runBuiltCli(['snapshot', '-c', `number-${index}`, 'disk'], { cwd }),
    )
    const ends = await Promise.all(runs)
    const winners: string[] = []
    for (const [index, { status, stderr }] of ends.entries()) {
      if (status === 0) winners.push(`number-${index}`)
      else
        expect({ status, stderr }).toEqual({
          status: 1,
          stderr: expect.stringContaining('[IMAGE_LOCKED]'),
        })
    }
    const info = JSON.parse(await qemuImgOk(['info', '--output=json', join(cwd, 'disk')]))
    const names = info.snapshots.map(({ name }: { name: string }) => name)
    expect(winners.length).toBeGreaterThan(0)
    expect(names.sort()).toEqual(winners)
    await qemuImgOk(['check', '-q', join(cwd, 'disk')])
  })

  test('nobody has the image while another one has it', async () => {
    const found = await lockRace(tempFolder(), { seconds: SECONDS, ours: 2, theirs: 1 })
    expect(found).toMatchObject({ overlaps: 0, isClean: true })
    expect(found.ourHolds).toBeGreaterThan(0)
  })
})
