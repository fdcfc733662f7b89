/** `measure` as a command: its words where it refuses, and encrypted targets, which are not made but can be measured. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

describe('measure', () => {
  it.each([
    [['--size', '1G', 'a.qcow2'], '--size N cannot be used together with a filename'],
    [[], 'Either --size N or one filename must be specified'],
    [['-l', 'x', '--size', '1G'], '--image-opts, -f, and -l require a filename argument'],
    [
      ['--size', '1G', '-O', 'qcow2', '-o', 'cluster_size=3'],
      'Cluster size must be a power of two between 512 and 2048k',
    ],
    [['--size', '1G', '-O', 'vhdx'], "Unknown file format 'vhdx'"],
  ])('refuses %j as qemu-img does', async (words, message) => {
    const { status, stdout, stderr } = await runCli(['measure', ...words])
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toContain(message)
  })

  it('takes the newer spellings', async () => {
    const old = await runCli(['measure', '--size', '1G', '-O', 'qcow2', '-o', 'cluster_size=4k'])
    const words = ['-s', '1G', '--target-format', 'qcow2', '--options', 'cluster_size=4k']
    const newer = await runCli(['measure', ...words])
    expect(newer).toEqual(old)
    expect(old.stdout).toMatch(/^required size: \d+\nfully allocated size: \d+\n$/)
  })

  it('counts the header of an encrypted image', async () => {
    const words = ['measure', '--size', '1G', '-O', 'qcow2', '-o']
    const plain = await runCli([...words, 'cluster_size=64k'])
    const luks = await runCli([...words, 'encrypt.format=luks,encrypt.key-secret=sec0'])
    const required = (text: string) => Number(/required size: (\d+)/.exec(text)?.[1])
    expect(required(luks.stdout) - required(plain.stdout)).toBe(2_097_152)
  })

  it('leaves the image as it is', async () => {
    const folder = tempFolder()
    const made = await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1G'], { cwd: folder })
    expect(made.status).toBe(0)
    const { stdout } = await runCli(['measure', '-O', 'qcow2', '--output=json', 'a.qcow2'], {
      cwd: folder,
    })
    expect(JSON.parse(stdout)).toEqual({
      bitmaps: 0,
      required: 393216,
      'fully-allocated': 1074135040,
    })
  })

  it('refuses an image whose data it cannot read', async () => {
    const cwd = tempFolder()
    const packed = readFileSync(join(import.meta.dirname, '../images/luks/disk.qcow2.gz'))
    writeFileSync(join(cwd, 'luks.qcow2'), gunzipSync(packed))
    const { status, stderr } = await runCli(['measure', 'luks.qcow2'], { cwd })
    expect([status, /\[ENCRYPTED\]/.test(stderr)]).toEqual([1, true])
  })
})
