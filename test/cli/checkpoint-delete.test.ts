/** `cowpoint checkpoint delete`, `prune`, `convert` and `purge` on real files. */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { CheckpointCatalogue, createCheckpoint } from '../../src/checkpoint/index.ts'
import { createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const SIZE = 1024 * 1024

/** A disk with external checkpoints `a`, `b` and `c`, a day apart. */
async function disk(): Promise<string> {
  const path = join(tempFolder(), 'disk.qcow2')
  const file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
  await createQcow2(file, { size: SIZE })
  await file.close()
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    await write(path, index + 1)
    const catalogue = await CheckpointCatalogue.find({ images: [path] })
    const date = new Date(2026, 0, 1 + index)
    await createCheckpoint(catalogue, { name, kind: 'external', date })
  }
  await write(path, 9)
  return path
}

async function write(path: string, byte: number): Promise<void> {
  await using chain = await openChain(path, { writable: true })
  await chain.device.write(byte * 65536, new Uint8Array(65536).fill(byte))
}

async function contentOf(path: string): Promise<string> {
  await using chain = await openChain(path)
  const bytes = new Uint8Array(SIZE)
  await chain.device.read(0, bytes)
  return Buffer.from(bytes).toString('latin1')
}

describe('checkpoint delete', () => {
  test('merges, tells what it did, and leaves the disk as it reads', async () => {
    const path = await disk()
    const before = await contentOf(path)
    const dry = await runCli(['checkpoint', 'delete', '-n', 'b', path])
    expect(dry.status).toBe(0)
    expect(dry.stdout).toContain('alternatives')
    expect(dry.stdout).toContain('keep: 0 B written')
    const { status, stdout } = await runCli(['checkpoint', 'delete', 'b', path])
    expect(status).toBe(0)
    expect(stdout).toMatch(/^Deleted b: pu(sh|ll) what /)
    expect((await contentOf(path)) === before).toBe(true)
    const again = await runCli(['checkpoint', 'delete', 'b', path])
    expect(again.status).not.toBe(0)
    expect(again.stderr).toContain('[CHECKPOINT_NOT_FOUND]')
  })

  test('goes the way that is asked for, and empties the trash', async () => {
    const path = await disk()
    const { status, stdout } = await runCli([
      ...['checkpoint', 'delete', '--direction', 'pull', '--verify', 'content'],
      ...['--purge', '--json', 'c', path],
    ])
    expect(status).toBe(0)
    const { done, verb, steps } = JSON.parse(stdout) as Record<string, unknown>
    expect([done, verb]).toEqual([true, 'delete'])
    expect(steps).toEqual([
      'pull what disk.c.qcow2 holds up into disk.qcow2',
      'move disk.c.qcow2 to the trash',
    ])
    expect(readdirSync(join(path, '..')).sort()).toEqual([
      '.cowpoint',
      'disk.a.qcow2',
      'disk.b.qcow2',
      'disk.qcow2',
    ])
    expect(readdirSync(join(path, '..', '.cowpoint'))).not.toContain('trash')
  })
})

describe('checkpoint prune', () => {
  test('keeps what the rules say', async () => {
    const path = await disk()
    const before = await contentOf(path)
    const { status, stdout } = await runCli(['checkpoint', 'prune', '--keep-last', '1', path])
    expect(status).toBe(0)
    expect(stdout).toMatch(/^keep {4}c @[0-9a-f]{8} \(last\)$/m)
    expect(stdout).toContain('1 kept, 2 deleted.')
    expect((await contentOf(path)) === before).toBe(true)
    const refused = await runCli(['checkpoint', 'prune', '--keep-last', 'many', path])
    expect(refused.stderr).toContain('[KEEP_RULES]')
  })
})

describe('checkpoint convert and purge', () => {
  test('make a layer a snapshot, and give its file back', async () => {
    const path = await disk()
    const before = await contentOf(path)
    const converted = await runCli(['checkpoint', 'convert', '--to', 'internal', 'c', path])
    expect([converted.status, converted.stdout]).toEqual([0, 'Converted c, now internal.\n'])
    const same = await runCli(['checkpoint', 'convert', '--to', 'internal', 'c', path])
    expect(same.stdout).toBe('c is internal already.\n')
    const without = await runCli(['checkpoint', 'convert', 'c', path])
    expect(without.stderr).toContain('[MISSING_OPTION]')
    expect((await contentOf(path)) === before).toBe(true)
    const dry = await runCli(['checkpoint', 'purge', '-n', path])
    expect(dry.stdout).toMatch(/1 files would be removed/)
    const { stdout } = await runCli(['checkpoint', 'purge', '--json', path])
    expect((JSON.parse(stdout) as { files: unknown[] }).files.length).toBe(1)
    const none = await runCli(['checkpoint', 'purge', path])
    expect(none.stdout).toBe('0 files removed, 0 B.\n')
  })
})
