/** `check` where it differs from qemu-img: damage that hides an image does not. Repairs are in check-repair.test.ts. */

import { describe, expect, test } from 'vitest'
import { pokeFile } from '../support/poke.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function image(): Promise<string> {
  const cwd = tempFolder()
  const words = ['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M']
  expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  return cwd
}

describe('check', () => {
  test('an image whose active table lies nowhere is checked, not refused', async () => {
    const cwd = await image()
    pokeFile(`${cwd}/a.qcow2`, [{ header: 'l1_table_offset', value: 0x4000_0000 }])
    const { status, stdout, stderr } = await runCli(['check', 'a.qcow2'], { cwd })
    expect(status).not.toBe(0)
    expect(stdout + stderr).not.toBe('')
  })

  test('a raw image has no check, and says so with status 63', async () => {
    const cwd = tempFolder()
    await runCli(['create', '-q', 'a.raw', '1M'], { cwd })
    expect(await runCli(['check', 'a.raw'], { cwd })).toMatchObject({ status: 63, stdout: '' })
  })
})
