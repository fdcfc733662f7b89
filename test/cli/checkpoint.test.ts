/** The command: how checkpoints are named on the command line, and what is printed. */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function folderWith(...names: readonly string[]): Promise<string> {
  const folder = tempFolder()
  for (const name of names) {
    const path = join(folder, name)
    const file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    await createQcow2(file, { size: 1024 * 1024 })
    await file.close()
    await scribble(path, 1)
  }
  return folder
}

async function scribble(path: string, value: number): Promise<void> {
  const file = await FileDevice.open(nodeFiles, path, { writable: true, growable: true })
  await using image = await Qcow2Image.open(file, { writable: true })
  await image.write(0, new Uint8Array(65536).fill(value))
}

/** Runs a verb in `folder`; its output without what differs from run to run. */
async function run(folder: string, ...words: readonly string[]) {
  const result = await runCli(['checkpoint', ...words], { cwd: folder })
  const tidied = (text: string) =>
    text
      .replaceAll(folder, '')
      .replace(/@[0-9a-f]{8}/g, '@ID')
      .replace(/\b\d+ (s|min)\b/g, 'AGE')
  return { ...result, stdout: tidied(result.stdout), stderr: tidied(result.stderr) }
}

describe('cowpoint checkpoint', () => {
  test('a day with checkpoints, told by the tree', async () => {
    const folder = await folderWith('disk.qcow2')
    const disk = join(folder, 'disk.qcow2')
    expect(
      await run(folder, 'create', 'one', 'disk.qcow2', '--description', 'clean'),
    ).toMatchObject({
      status: 0,
      stdout: 'Created checkpoint one @ID.\n',
    })
    await scribble(disk, 2)
    await run(folder, 'create', '--external', 'two')
    await scribble(disk, 3)
    expect((await run(folder, 'restore', 'two', '--keep-as', 'failed')).stdout).toBe(
      'Restored two.\n',
    )
    expect((await run(folder, 'tree')).stdout.split('\n')).toEqual([
      '/disk.qcow2',
      '└─ one @ID  internal · crash · AGE ago · 64 KiB own, 0 B shared, 192 KiB to gain  clean',
      '   └─ two @ID  external · crash · AGE ago · 0 B own, 64 KiB shared, 0 B to gain',
      // How much the whole file takes is the host's affair.
      expect.stringMatching(
        /^ {6}├─ failed @ID {2}external, kept · crash · AGE ago · 64 KiB own, 0 B/,
      ),
      '      └─ * now',
      '',
    ])
    expect((await run(folder, 'restore', 'two')).stdout).toBe('The disks are two already.\n')
    expect((await run(folder, 'rename', 'failed', 'attempt')).stdout).toBe(
      'Renamed failed to attempt.\n',
    )
    const listed = (await run(folder, 'list', '--no-sizes')).stdout.split('\n')
    expect(listed.slice(2).map((line) => line.trim().split(/ {2,}/).slice(0, 3))).toEqual([
      ['one', '@ID', 'AGE'],
      ['*', 'two', '@ID'],
      ['attempt', '@ID', 'AGE'],
      [''],
    ])
    expect((await run(folder, 'diff', 'one', 'two')).stdout).toBe(
      '/disk.qcow2\n  0x0           0x10000       data\n/disk.qcow2: 64 KiB changed\n',
    )
    expect((await run(folder, 'verify')).stdout).toBe(
      '3 checkpoints, 3 layers, 0 state files: 0 findings.\n',
    )
  })

  test('JSON says the same for programs', async () => {
    const folder = await folderWith('a.qcow2', 'b.qcow2')
    const created = await run(folder, 'create', 'one', 'a.qcow2', 'b.qcow2', '--json')
    const { done, recovery, verb, checkpoint, files } = JSON.parse(created.stdout)
    expect({ done, recovery, verb, files }).toEqual({
      ...{ done: true, recovery: 'nothing', verb: 'create' },
      files: [
        { path: '/a.qcow2', action: 'change' },
        { path: '/b.qcow2', action: 'change' },
      ],
    })
    const { sets } = JSON.parse((await run(folder, 'list', '--json')).stdout)
    expect(sets).toHaveLength(1)
    expect(sets[0].position).toBe(checkpoint.id)
    expect(sets[0].checkpoints[0]).toMatchObject({
      ...{ name: 'one', kind: 'internal', complete: true, labels: {} },
      places: [
        { path: '/a.qcow2', snapshot: '1' },
        { path: '/b.qcow2', snapshot: '1' },
      ],
    })
    const diff = JSON.parse((await run(folder, 'diff', 'one', '--json')).stdout)
    expect(diff.disks.map((disk: { path: string }) => disk.path)).toEqual(['/a.qcow2', '/b.qcow2'])
    const shown = JSON.parse((await run(folder, 'show', 'one', '--json')).stdout)
    expect(shown).toMatchObject({ id: checkpoint.id, 'exclusive-size': 0 })
    const failed = await run(folder, 'show', 'none', '--json')
    expect(JSON.parse(failed.stderr).error).toMatchObject({
      ...{ code: 'CHECKPOINT_NOT_FOUND', kind: 'usage', status: 64 },
    })
  })

  test('a dry run prints the plan and touches nothing', async () => {
    const folder = await folderWith('disk.qcow2')
    const { stdout } = await run(folder, 'create', '-n', '--external', 'one', 'disk.qcow2')
    expect(stdout.split('\n')).toEqual([
      'create one @ID',
      'steps',
      '  freeze disk.qcow2',
      '  give disk.qcow2 the name disk.one.qcow2 too',
      '  build an overlay on disk.one.qcow2',
      '  put the overlay in the place of disk.qcow2',
      'files',
      '  change  /disk.qcow2',
      '  link    /disk.one.qcow2',
      '  replace /disk.qcow2',
      'views',
      '  /disk.qcow2: reads the same',
      'reads 0 B, writes 256 KiB, needs 256 KiB of space',
      '',
    ])
    expect(readdirSync(folder)).toEqual(['disk.qcow2'])
  })

  test('what is ambiguous lists its candidates', async () => {
    const folder = await folderWith('a.qcow2', 'b.qcow2')
    await run(folder, 'create', 'same', 'a.qcow2')
    await run(folder, 'create', 'same', 'b.qcow2')
    const { status, stderr } = await run(folder, 'restore', 'same')
    expect(status).toBe(64)
    expect(stderr).toContain(
      "checkpoint 'same' can be 2: same @ID of /a.qcow2, same @ID of /b.qcow2 [CHECKPOINT_AMBIGUOUS]",
    )
    const id = JSON.parse(
      (await runCli(['checkpoint', 'show', 'same', 'b.qcow2', '--json'], { cwd: folder })).stdout,
    ).id
    expect((await run(folder, 'show', `@${id.slice(0, 8)}`)).stdout).toContain('/b.qcow2')
    expect((await run(folder, 'create', 'more')).stderr).toContain('[SET_AMBIGUOUS]')
  })

  test('labels and descriptions come and go', async () => {
    const folder = await folderWith('disk.qcow2')
    await run(folder, 'create', 'one', 'disk.qcow2', '--label', 'a=1', '--label', 'b=2')
    await run(folder, 'describe', 'one', '--label', 'a=', '--label', 'c=3', '--description', 'text')
    const { stdout } = await run(folder, 'show', 'one')
    expect(stdout).toMatch(/description: +text/)
    expect(stdout).toMatch(/label: +b=2\nlabel: +c=3/)
    expect(stdout).not.toContain('a=1')
    expect((await run(folder, 'describe', 'one', '--label', '=x')).stderr).toContain(
      '[INVALID_OPTION_VALUE]',
    )
  })

  test('resume mends what a cut left, and says so', async () => {
    const folder = await folderWith('disk.qcow2')
    await run(folder, 'create', 'one', 'disk.qcow2')
    const path = join(folder, '.cowpoint/journal.json')
    const id = 'cd'.repeat(16)
    const journal = {
      ...{ format: 'cowpoint-journal', version: 1, id, verb: 'create', point: 0 },
      steps: [{ do: 'place', path: 'x', to: 'disk.qcow2', id, replace: true }],
      back: [{ do: 'unlink', path: 'x' }],
    }
    const file = await nodeFiles.open(path, 'create-new')
    file.writeSync(new TextEncoder().encode(JSON.stringify(journal)), 0)
    await file.close()
    expect((await run(folder, 'resume', '-n')).stdout).toBe("'create' was cut off here.\n")
    expect((await run(folder, 'create', '-n', 'two')).stderr).toContain('[JOURNAL_PENDING]')
    expect((await run(folder, 'resume')).stdout).toBe(
      'What was cut off is taken back; 0 temporary files removed.\n',
    )
    expect((await run(folder, 'resume', '--json')).stdout).toContain('"recovery": "nothing"')
    expect(readFileSync(join(folder, '.cowpoint/catalogue.json'), 'utf8')).toContain('"one"')
  })

  test('verbs are found by their names, and help tells them', async () => {
    const folder = await folderWith()
    expect((await run(folder, 'create', '--help')).stdout).toContain('cowpoint checkpoint create')
    expect((await run(folder, '--help')).stdout).toContain('cowpoint checkpoint restore')
    expect((await runCli(['help', 'checkpoint', 'tree'])).stdout).toContain(
      'cowpoint checkpoint tree',
    )
    expect(await run(folder, 'nonsense')).toMatchObject({ status: 64 })
    expect((await run(folder)).stderr).toContain('[MISSING_COMMAND]')
    expect((await run(folder, 'create', '--internal', '--external', 'x')).stderr).toContain(
      '[CONFLICTING_OPTIONS]',
    )
  })
})
