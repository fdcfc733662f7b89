/** `amend` where it goes its own way: names without files, loss by name only, and views that qemu-img loses. */

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function folderWith(...lines: readonly string[]): Promise<string> {
  const cwd = tempFolder()
  for (const line of lines) {
    const made = await runCli(line.split(' '), { cwd })
    expect(made).toMatchObject({ status: 0, stderr: '' })
  }
  return cwd
}

async function info(cwd: string, name: string): Promise<Record<string, unknown>> {
  return JSON.parse((await runCli(['info', '--output=json', name], { cwd })).stdout)
}

describe('amend', () => {
  it('names another data file where the old one is gone', async () => {
    const cwd = await folderWith('create -q -f qcow2 -o data_file=d.raw a.qcow2 1M')
    rmSync(join(cwd, 'd.raw'))
    const { status, stderr } = await runCli(['amend', '-o', 'data_file=e.raw', 'a.qcow2'], { cwd })
    expect([status, stderr]).toEqual([0, ''])
    expect(await info(cwd, 'a.qcow2')).toMatchObject({
      'format-specific': { data: { 'data-file': 'e.raw' } },
    })
  })

  it('cuts a disk off with --force only', async () => {
    const cwd = await folderWith('create -q -f qcow2 a.qcow2 1M')
    const refused = await runCli(['amend', '-o', 'size=512k', 'a.qcow2'], { cwd })
    expect(refused.status).toBe(1)
    expect(refused.stderr).toMatch(/would lose .*--force.*\[SHRINK_NOT_ALLOWED\]/)
    expect(await info(cwd, 'a.qcow2')).toMatchObject({ 'virtual-size': 1024 * 1024 })
    const forced = await runCli(['amend', '--force', '-o', 'size=512k', 'a.qcow2'], { cwd })
    expect(forced.status).toBe(0)
    expect(await info(cwd, 'a.qcow2')).toMatchObject({ 'virtual-size': 512 * 1024 })
  })

  it('keeps what a snapshot holds where the disk has zeroes in the same cluster', async () => {
    const cwd = await folderWith('create -q -f qcow2 a.qcow2 1M')
    const path = join(cwd, 'a.qcow2')
    const image = await Qcow2Image.open(
      await FileDevice.open(nodeFiles, path, { writable: true, growable: true }),
      { writable: true },
    )
    await image.write(0, new Uint8Array(65536).fill(5))
    await image.createSnapshot({ name: 'one' })
    await image.writeZeroes(0, 65536)
    await image.close()
    const { status } = await runCli(['amend', '-o', 'compat=0.10', 'a.qcow2'], { cwd })
    expect(status).toBe(0)
    const back = await runCli(['snapshot', '-a', 'one', 'a.qcow2'], { cwd })
    expect(back.status).toBe(0)
    const read = await runCli(['io', '-r', '-c', 'read -P 5 0 64k', 'a.qcow2'], { cwd })
    expect(read.status).toBe(0)
    expect(read.stdout).not.toContain('verification failed')
  })

  it('changes nothing of a list in which one change is refused', async () => {
    const cwd = await folderWith('create -q -f qcow2 a.qcow2 1M')
    const before = await info(cwd, 'a.qcow2')
    for (const list of ['refcount_bits=8,compat=0.10', 'lazy_refcounts=on,backing_file=x']) {
      const { status } = await runCli(['amend', '-o', list, 'a.qcow2'], { cwd })
      expect(status).toBe(1)
    }
    expect(await info(cwd, 'a.qcow2')).toEqual(before)
  })
})
