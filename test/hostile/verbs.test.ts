/** Every verb of the command on damaged images, a value of each field: `npm run fuzz -- --verbs` takes all of the table. */

import { expect, test } from 'vitest'
import { COMMANDS } from '../../src/cli/registry.ts'
import { READING, rowsOfFields, tryLines, WRITING } from './verbs.ts'

const TURN = Number(process.env.COWPOINT_HOSTILE_TURN ?? 1)

test.each(rowsOfFields(TURN).map((row) => [row.key, row] as const))(
  '%s ends each verb with a result or an error of ours',
  async (_key, row) => {
    expect((await tryLines(row.bytes())).failures).toEqual([])
  },
)

test('no verb that opens images is left out', () => {
  const tried = new Set([...READING, ...WRITING].map(([verb]) => verb))
  const left = COMMANDS.map(({ name }) => name).filter((name) => !tried.has(name))
  expect(left).toEqual(['gc', 'version'])
})
