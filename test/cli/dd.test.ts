/** `dd` as a command: what must not be overwritten, and that a failure leaves nothing. */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

describe('dd', () => {
  it('copies blocks, counted from the start of the input', async () => {
    const cwd = tempFolder()
    const bytes = Buffer.from(Array.from({ length: 8192 }, (_, index) => (index * 7) % 256))
    writeFileSync(join(cwd, 'a.raw'), bytes)
    const words = ['dd', '-f', 'raw', 'if=a.raw', 'of=b.raw', 'bs=1k', 'skip=2', 'count=5']
    expect((await runCli(words, { cwd })).status).toBe(0)
    expect(readFileSync(join(cwd, 'b.raw')).equals(bytes.subarray(2048, 5120))).toBe(true)
  })

  it('does not write over its input', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), Buffer.alloc(4096, 'a'))
    const { status, stderr } = await runCli(['dd', '-f', 'raw', 'if=a.raw', 'of=a.raw'], { cwd })
    expect([status, /\[TARGET_IS_SOURCE\]/.test(stderr)]).toEqual([1, true])
    expect(readFileSync(join(cwd, 'a.raw')).equals(Buffer.alloc(4096, 'a'))).toBe(true)
  })

  it('makes an empty image and says so where all is skipped', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), Buffer.alloc(4096, 'a'))
    const words = ['dd', '-f', 'raw', 'if=a.raw', 'of=b.raw', 'bs=1k', 'skip=5']
    const { status, stderr } = await runCli(words, { cwd })
    expect([status, stderr]).toEqual([
      0,
      'cowpoint: a.raw: warning: cannot skip to specified offset\n',
    ])
    expect(readFileSync(join(cwd, 'b.raw')).length).toBe(0)
  })

  it.each([
    [['if=a.raw'], 'Must specify both input and output files'],
    [['if=a.raw', 'of=b.raw', 'bs=0'], 'Invalid bs specified. Must be between 1 and 2147483647'],
    [['if=a.raw', 'of=b.raw', 'conv=sync'], 'unrecognized operand conv'],
  ])('refuses %j', async (operands, message) => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), Buffer.alloc(4096))
    const { status, stderr } = await runCli(['dd', ...operands], { cwd })
    expect([status, stderr.includes(message)]).toEqual([1, true])
    expect(readdirSync(cwd)).toEqual(['a.raw'])
  })
})
