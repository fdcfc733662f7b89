import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeOverlay } from '../chain/overlay.ts'
import { describeWithQemu, qemuImgOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** base ← mid ← top, base ← side with a snapshot, and clones/one on base. */
async function family(): Promise<string> {
  const folder = tempFolder()
  const cwd = folder
  await qemuImgOk(['create', '-q', '-f', 'qcow2', 'base.qcow2', '10M'], { cwd })
  mkdirSync(join(folder, 'clones'))
  for (const [path, base] of [
    ['mid.qcow2', 'base.qcow2'],
    ['top.qcow2', 'mid.qcow2'],
    ['side.qcow2', 'base.qcow2'],
    ['clones/one.qcow2', '../base.qcow2'],
  ] as const) {
    const words = ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', path]
    expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  }
  await qemuImgOk(['snapshot', '-c', 'first', 'side.qcow2'], { cwd })
  return folder
}

const chain = (cwd: string, ...words: string[]) => runCli(['chain', ...words], { cwd })
const withoutSpace = (text: string) => text.replace(/[\d.]+ \w+ on disk/g, '? on disk')

describeWithQemu('chain', () => {
  test('shows what an image stands on and what else stands on that', async () => {
    const folder = await family()
    const { status, stdout, stderr } = await chain(folder, 'top.qcow2')
    expect([status, stderr]).toEqual([0, ''])
    expect(withoutSpace(stdout).split('\n')).toEqual([
      'base.qcow2  qcow2 · 10 MiB · ? on disk · depth 0',
      '├─ mid.qcow2  qcow2 · 10 MiB · ? on disk · depth 1',
      '│  └─ top.qcow2 *  qcow2 · 10 MiB · ? on disk · depth 2',
      '└─ side.qcow2  qcow2 · 10 MiB · ? on disk · depth 1 · 1 snapshots (first)',
      '',
    ])
  })

  test('named folders are looked through too, and several images make a forest', async () => {
    const folder = await family()
    writeFileSync(join(folder, 'lone.raw'), Buffer.alloc(512))
    const found = await chain(folder, '--search', 'clones', 'mid.qcow2', 'lone.raw')
    expect(withoutSpace(found.stdout)).toContain('├─ clones/one.qcow2  qcow2 · 10 MiB')
    expect(withoutSpace(found.stdout)).toContain('lone.raw *  raw · 512 B · ? on disk · depth 0')
    expect(found.status).toBe(0)
  })

  test('as JSON, links carry their state; the base that was written to is told', async () => {
    const folder = await family()
    utimesSync(join(folder, 'base.qcow2'), 1e9, 1e9)
    const { status, stdout } = await chain(folder, '--json', 'top.qcow2')
    expect(status).toBe(1)
    const { files, complete } = JSON.parse(stdout)
    expect(complete).toBe(true)
    expect(files).toHaveLength(4)
    expect(files[1]).toMatchObject({
      path: 'mid.qcow2',
      asked: false,
      depth: 1,
      'virtual-size': 10 * 1024 ** 2,
      backing: {
        name: 'base.qcow2',
        path: 'base.qcow2',
        state: 'changed',
        message: 'was written to or replaced',
        file: 'base.qcow2',
      },
    })
    expect(files[3].snapshots).toEqual([{ id: '1', name: 'first' }])
    expect((await chain(folder, 'top.qcow2')).stdout).toContain(
      'changed base: it was written to or replaced',
    )
  })

  test('as a graph it is what Graphviz reads', async () => {
    const folder = await family()
    unlinkSync(join(folder, 'side.qcow2'))
    const { stdout } = await chain(folder, '--dot', 'mid.qcow2')
    expect(stdout.split('\n')).toEqual([
      'digraph chain {',
      '  rankdir=BT',
      '  node [shape=box]',
      '  "base.qcow2" [label="base.qcow2 (qcow2)"]',
      '  "mid.qcow2" [label="mid.qcow2 (qcow2)", style=bold]',
      '  "top.qcow2" [label="top.qcow2 (qcow2)"]',
      '  "mid.qcow2" -> "base.qcow2"',
      '  "top.qcow2" -> "mid.qcow2"',
      '}',
      '',
    ])
    if (spawnSync('dot', ['-V']).status === 0) execFileSync('dot', ['-Tsvg'], { input: stdout })
  })

  test('a missing base, one elsewhere, a loop and a damaged one are shown and exit 1', async () => {
    const folder = await family()
    unlinkSync(join(folder, 'base.qcow2'))
    const missing = await chain(folder, 'top.qcow2')
    expect([missing.status, withoutSpace(missing.stdout)]).toEqual([
      1,
      'base.qcow2  missing: does not exist\n' +
        '└─ mid.qcow2  qcow2 · 10 MiB · ? on disk · depth 0\n' +
        '   └─ top.qcow2 *  qcow2 · 10 MiB · ? on disk · depth 1\n',
    ])
    await makeOverlay(join(folder, 'far.qcow2'), { backing: 'nbd://host/disk' })
    expect((await chain(folder, 'far.qcow2')).stdout).toContain('nbd://host/disk  elsewhere: ')
    await makeOverlay(join(folder, 'a.qcow2'), { backing: 'b.qcow2' })
    await makeOverlay(join(folder, 'b.qcow2'), { backing: 'a.qcow2' })
    const loop = await chain(folder, 'a.qcow2')
    expect([loop.status, withoutSpace(loop.stdout)]).toEqual([
      1,
      'b.qcow2  loop: the file stands on itself\n' +
        '└─ a.qcow2 *  qcow2 · 1 MiB · ? on disk · depth 0\n' +
        '   └─ b.qcow2  qcow2 · 1 MiB · ? on disk · depth 1\n',
    ])
    writeFileSync(
      join(folder, 'base.qcow2'),
      Buffer.from(`514649fb00000003${'00'.repeat(200)}`, 'hex'),
    )
    const damaged = await chain(folder, 'top.qcow2')
    expect(damaged.stdout).toContain('base.qcow2  damaged qcow2')
    expect(damaged.stderr).toContain('base.qcow2: warning: left out: ')
    expect((await chain(folder, 'base.qcow2')).status).toBe(65)
    expect((await chain(folder, 'none.qcow2')).status).toBe(64)
  })

  test('control characters of names do not reach the terminal', async () => {
    const folder = tempFolder()
    await makeOverlay(join(folder, 'x.qcow2'), { backing: 'a\u001b[31mred' })
    const { stdout } = await chain(folder, 'x.qcow2')
    expect(stdout).toContain('a\\x1b[31mred')
  })
})
