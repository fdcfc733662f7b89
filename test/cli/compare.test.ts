/** `compare` as a command: which failure ends with which status, and about which image. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function images(): Promise<string> {
  const cwd = tempFolder()
  writeFileSync(join(cwd, 'a.raw'), Buffer.alloc(256 * 1024, 'a'))
  const words = ['convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2']
  expect((await runCli(words, { cwd })).status).toBe(0)
  return cwd
}

/** Where the entry of the first L2 table for guest cluster `index` lies. */
function l2Entry(bytes: Buffer, index: number): number {
  const l1 = Number(bytes.readBigUInt64BE(40))
  return Number(bytes.readBigUInt64BE(l1) & 0x00ffffffffffffffn) + index * 8
}

describe('compare', () => {
  it('ends with 0 for the same content in two formats', async () => {
    const cwd = await images()
    const { status, stdout } = await runCli(['compare', '-f', 'raw', 'a.raw', 'a.qcow2'], { cwd })
    expect([status, stdout]).toEqual([0, 'Images are identical.\n'])
  })

  it('names the sector of the first difference', async () => {
    const cwd = await images()
    await runCli(['io', '-c', 'write -P 1 131585 1', 'a.qcow2'], { cwd })
    const { status, stdout } = await runCli(['compare', '-f', 'raw', 'a.raw', 'a.qcow2'], { cwd })
    expect([status, stdout]).toEqual([1, 'Content mismatch at offset 131584!\n'])
  })

  it('ends with 2 where an image cannot be opened, and names it', async () => {
    const cwd = await images()
    const { status, stderr } = await runCli(['compare', 'a.qcow2', 'missing'], { cwd })
    expect(status).toBe(2)
    expect(stderr).toMatch(/^cowpoint: missing: .* \[FILE_NOT_FOUND\]\n/)
  })

  it('ends with 3 or 4 where an image is damaged, and names it', async () => {
    const cwd = await images()
    const bytes = readFileSync(join(cwd, 'a.qcow2'))
    bytes.writeBigUInt64BE(0x8000_0000_0005_0200n, l2Entry(bytes, 2))
    writeFileSync(join(cwd, 'bad.qcow2'), bytes)
    const { status, stderr } = await runCli(['compare', 'a.qcow2', 'bad.qcow2'], { cwd })
    expect([3, 4]).toContain(status)
    expect(stderr).toMatch(/^cowpoint: bad\.qcow2: /)
  })

  it('says nothing with -q but how it ends', async () => {
    const cwd = await images()
    await runCli(['io', '-c', 'write -P 1 0 1', 'a.qcow2'], { cwd })
    const { status, stdout } = await runCli(['compare', '-q', 'a.raw', 'a.qcow2'], { cwd })
    expect([status, stdout]).toEqual([1, ''])
  })
})
