/** Every verb of the command on damaged images, a value of each field: `npm run fuzz -- --verbs` takes all of the table. */

import { expect, test } from 'vitest'
import { COMMANDS } from '../../src/cli/registry.ts'
import { fieldTable } from './field-table.ts'
import { READING, rowsOfFields, tryLines, WRITING } from './verbs.ts'

const TURN = Number(process.env.COWPOINT_HOSTILE_TURN ?? 1)

test.each(rowsOfFields(TURN).map((row) => [row.key, row] as const))(
  '%s ends each verb with a result or an error of ours',
  async (_key, row) => {
    expect((await tryLines(row.bytes())).failures).toEqual([])
  },
)

/** What a repair of these met before it refused or left them: fields behind the first sector, places beyond what a number holds. */
const FOUND = [
  'extended-l2-snapshots/header.header_length/cluster-1',
  'backed/header.snapshots_offset/2^63-512',
  'zlib-4k/header.snapshots_offset/max',
]

test.each(FOUND)('%s can be repaired, or is refused', async (key) => {
  const row = fieldTable().find((one) => one.key === key)
  expect((await tryLines(row!.bytes())).failures).toEqual([])
})

test('no verb that opens images is left out', () => {
  const tried = new Set([...READING, ...WRITING].map(([verb]) => verb))
  const left = COMMANDS.map(({ name }) => name).filter((name) => !tried.has(name))
  expect(left).toEqual(['gc', 'version'])
})
