/** `compact` and `usage` as commands: what they print, and what they refuse. */

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1 << 20

/** A folder with `a.qcow2`: a MiB free in its middle, data behind that, a snapshot. */
async function folder(): Promise<string> {
  const cwd = tempFolder()
  const made = await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '8M'], { cwd })
  expect(made.status).toBe(0)
  const file = await FileDevice.open(nodeFiles, join(cwd, 'a.qcow2'), {
    writable: true,
    growable: true,
  })
  const image = await Qcow2Image.open(file, { writable: true })
  await image.write(0, new Uint8Array(2 * MIB).fill(1))
  await image.flush()
  await image.discard(0, MIB)
  await image.createSnapshot({ name: 'before' })
  await image.write(7 * MIB, new Uint8Array(MIB / 4).fill(2))
  await image.flush()
  await image.close()
  return cwd
}

describe('compact', () => {
  it('says beforehand what it does, does it, and has nothing more to do', async () => {
    const cwd = await folder()
    const path = join(cwd, 'a.qcow2')
    const before = readFileSync(path)
    const plan = await runCli(['compact', '--dry-run', 'a.qcow2'], { cwd })
    expect(readFileSync(path).equals(before)).toBe(true)
    const done = await runCli(['compact', 'a.qcow2'], { cwd })
    expect([plan.status, plan.stderr, done.status, done.stderr]).toEqual([0, '', 0, ''])
    const { size } = statSync(path)
    expect(plan.stdout).toContain('Data would be moved: ')
    expect(plan.stdout).toContain(`(${size} bytes) long, `)
    expect(plan.stdout.replace(/would be (?=moved)/, '').replace('would be', 'is')).toBe(
      done.stdout,
    )
    expect(size).toBeLessThan(before.length)
    const again = await runCli(['compact', 'a.qcow2'], { cwd })
    expect(again.stdout).toMatch(/^Nothing to move: the file is .* long\.\n$/)
  })

  it('prints JSON, for the plan as for the deed', async () => {
    const cwd = await folder()
    const plan = JSON.parse((await runCli(['compact', '-n', '--json', 'a.qcow2'], { cwd })).stdout)
    expect(Object.keys(plan)).toEqual([
      'filename',
      'dry-run',
      'old-file-size',
      'file-size',
      'moved-size',
      'zeroed-size',
      'free-size',
      'pinned-size',
    ])
    const done = JSON.parse((await runCli(['compact', '--json', 'a.qcow2'], { cwd })).stdout)
    expect(done).toEqual({ ...plan, 'dry-run': false })
  })

  it('moves no more than it may', async () => {
    const cwd = await folder()
    const words = ['compact', '--json', '--max-move', '128k', 'a.qcow2']
    const { stdout } = await runCli(words, { cwd })
    expect(JSON.parse(stdout)['moved-size']).toBeLessThanOrEqual(128 << 10)
  })

  it('stops when it is told to, and leaves the image whole', async () => {
    const cwd = await folder()
    const signal = AbortSignal.abort(new Error('no more'))
    const { status } = await runCli(['compact', 'a.qcow2'], { cwd, signal })
    expect(status).not.toBe(0)
    expect((await runCli(['check', 'a.qcow2'], { cwd })).status).toBe(0)
  })

  it.each(['compact', 'usage'])('has nothing to say to a raw image: %s', async (verb) => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'r.raw'), Buffer.alloc(4096))
    const { status, stderr } = await runCli([verb, '-f', 'raw', 'r.raw'], { cwd })
    expect(status).toBeGreaterThan(0)
    expect(stderr).toMatch(/^cowpoint: r\.raw: a raw image .* \[FORMAT_NOT_SUPPORTED\]\n/)
  })
})

describe('usage', () => {
  it('shows a bar, the snapshots, and what would give space back', async () => {
    const cwd = await folder()
    const before = readFileSync(join(cwd, 'a.qcow2'))
    const { status, stdout, stderr } = await runCli(['usage', 'a.qcow2'], { cwd })
    expect([status, stderr]).toEqual([0, ''])
    const lines = stdout.split('\n')
    expect(lines[0]).toMatch(/^a\.qcow2: .* \(\d+ bytes\), clusters of 64 KiB$/)
    expect(lines[1]).toMatch(/^\[#+=+m+\.+\]$/)
    expect(lines.slice(2, 8)).toEqual([
      expect.stringMatching(/^ {2}# active disk only +256 KiB +\d+\.\d%$/),
      expect.stringMatching(/^ {2}= shared +1 MiB +\d+\.\d%$/),
      expect.stringMatching(/^ {2}\+ one snapshot only +0 B +0\.0%$/),
      expect.stringMatching(/^ {2}m metadata +\d+ KiB +\d+\.\d%$/),
      expect.stringMatching(/^ {2}! leaked +0 B +0\.0%$/),
      expect.stringMatching(/^ {2}\. free within the file +\d+ KiB +\d+\.\d%$/),
    ])
    expect(stdout).toMatch(/\n1 +before +0 B +1 MiB +128 KiB\n/)
    expect(stdout).toContain('Shared by\n     1 MiB  active disk, before\n')
    expect(stdout).toMatch(/\nCompacting would give back \d+ KiB by moving \d+ KiB\.\n$/)
    expect(readFileSync(join(cwd, 'a.qcow2')).equals(before)).toBe(true)
  })

  it('prints the same as JSON', async () => {
    const cwd = await folder()
    const { stdout } = await runCli(['usage', '--json', 'a.qcow2'], { cwd })
    const report = JSON.parse(stdout)
    expect(report).toMatchObject({
      'active-only': MIB / 4,
      snapshots: [{ name: 'before', 'exclusive-size': 0, 'shared-size': MIB }],
      shared: [{ size: MIB, active: true, snapshots: ['1'] }],
      leaked: 0,
    })
    const plan = JSON.parse((await runCli(['compact', '-n', '--json', 'a.qcow2'], { cwd })).stdout)
    expect(report.compact['file-size']).toBe(plan['file-size'])
  })
})
