/** `resize` as a command: its words where it refuses. What it does to images is compared with qemu-img elsewhere. */

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function image(): Promise<string> {
  const cwd = tempFolder()
  const made = await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '2M'], { cwd })
  expect(made.status).toBe(0)
  return cwd
}

describe('resize', () => {
  it.each([
    [['a.qcow2', '0'], 'New image size must be positive [INVALID_SIZE]'],
    [['a.qcow2', '-2M'], 'New image size must be positive [INVALID_SIZE]'],
    [['a.qcow2', '2000001K'], undefined],
    [['a.qcow2', '3000001'], 'The new size must be a multiple of 512 [INVALID_SIZE]'],
    [
      ['a.qcow2', '1M'],
      'Use the --shrink option to perform a shrink operation [SHRINK_NOT_ALLOWED]',
    ],
    [
      ['--preallocation=full', 'a.qcow2', '1M'],
      'Preallocation can only be used for growing images [INVALID_SIZE]',
    ],
    [
      ['--preallocation=foo', 'a.qcow2', '1M'],
      "Invalid preallocation mode 'foo' [INVALID_OPTION_VALUE]",
    ],
    [['a.qcow2', '1X'], "Parameter 'size' expects a non-negative number below 2^64"],
    [['a.qcow2', '+-1'], "Parameter 'size' expects a non-negative number below 2^64"],
    [['a.qcow2', '20E'], "Value '20E' is out of range for parameter 'size'"],
  ])('answers %j as qemu-img does', async (words, message) => {
    const cwd = await image()
    const before = readFileSync(join(cwd, 'a.qcow2'))
    const { status, stdout, stderr } = await runCli(['resize', ...words], { cwd })
    if (message === undefined) {
      expect([status, stdout, stderr]).toEqual([0, 'Image resized.\n', ''])
      return
    }
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toContain(message)
    expect(readFileSync(join(cwd, 'a.qcow2')).equals(before)).toBe(true)
  })

  it('warns that shrinking loses data when it refuses to shrink', async () => {
    const { stderr } = await runCli(['resize', 'a.qcow2', '1M'], { cwd: await image() })
    expect(stderr).toContain(
      "warning: Shrinking an image will delete all data beyond the shrunken image's end",
    )
  })

  it('cuts a disk off only with --shrink', async () => {
    const cwd = await image()
    const { status, stdout, stderr } = await runCli(['resize', '--shrink', 'a.qcow2', '1M'], {
      cwd,
    })
    expect([status, stdout, stderr]).toEqual([0, 'Image resized.\n', ''])
    const info = await runCli(['info', '--output=json', 'a.qcow2'], { cwd })
    expect(JSON.parse(info.stdout)).toMatchObject({ 'virtual-size': 1024 * 1024 })
  })

  it('warns when it has to guess that a disk is raw', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'r.raw'), Buffer.alloc(1000))
    const guessed = await runCli(['resize', 'r.raw', '4k'], { cwd })
    expect(guessed.status).toBe(0)
    expect(guessed.stderr).toMatch(/^WARNING: Image format was not specified for 'r\.raw'/)
    const told = await runCli(['resize', '-f', 'raw', 'r.raw', '+1k'], { cwd })
    expect([told.status, told.stderr, statSync(join(cwd, 'r.raw')).size]).toEqual([0, '', 5120])
  })
})
