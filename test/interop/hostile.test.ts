/** A share of the table of hostile images, read by QEMU as well; `npm run fuzz -- --table --qemu` takes all of it. */

import { expect, test } from 'vitest'
import { fieldTable } from '../hostile/field-table.ts'
import { compareWithQemu, isMeant } from '../hostile/qemu-agreement.ts'
import { describeWithQemu } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

const STEP = Math.max(1, Math.round(40 / Number(process.env.COWPOINT_RUNS ?? '1')))

describeWithQemu('QEMU and we', () => {
  test('read the same from hostile images, or differ as we mean to', async () => {
    const folder = tempFolder()
    let sameCount = 0
    for (const { key, bytes } of fieldTable({ first: 7, step: STEP })) {
      const agreement = await compareWithQemu(bytes(), folder)
      if (agreement.kind === 'same') sameCount++
      expect([key, agreement, isMeant(agreement)]).toEqual([key, agreement, true])
    }
    expect(sameCount).toBeGreaterThan(10)
  }, 120_000)
})
