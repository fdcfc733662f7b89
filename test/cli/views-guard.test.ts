import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** base (format as said) ← over.qcow2 ← top.qcow2, and a clone of base in another folder. */
async function stack(format: 'raw' | 'qcow2' = 'qcow2'): Promise<string> {
  const folder = tempFolder()
  const cwd = folder
  mkdirSync(join(folder, 'clones'))
  await qemuImgOk(['create', '-q', '-f', format, 'base', '2M'], { cwd })
  await qemuIoOk(join(folder, 'base'), ['write -P 7 0 2M'], { format })
  const over = (path: string, base: string, kind: string) =>
    qemuImgOk(['create', '-q', '-f', 'qcow2', '-b', base, '-F', kind, path], { cwd })
  await over('over.qcow2', 'base', format)
  await over('top.qcow2', 'over.qcow2', 'qcow2')
  await qemuImgOk(['snapshot', '-c', 'one', 'over.qcow2'], { cwd })
  await over('clones/far.qcow2', '../base', format)
  return folder
}

describeWithQemu('verbs that change what a file reads as', () => {
  test('resizing a base that has overlays is refused with their names and the next command', async () => {
    for (const format of ['raw', 'qcow2'] as const) {
      const cwd = await stack(format)
      const before = readFileSync(join(cwd, 'base'))
      for (const words of [
        ['base', '+1M'],
        ['--shrink', 'base', '1M'],
      ]) {
        const result = await runCli(['resize', '-f', format, ...words], { cwd })
        expect(result).toMatchObject({ status: 1, stdout: '' })
        expect(result.stderr).toBe(
          'cowpoint: base: resize would change what 2 overlays above it and their 1 internal snapshots read: ' +
            'over.qcow2, top.qcow2 [BASE_HAS_OVERLAYS]\n' +
            "cowpoint: hint: 'cowpoint rebase -b '' over.qcow2' makes the first of them independent; " +
            '--unsafe changes them all\n',
        )
      }
      expect(before.equals(readFileSync(join(cwd, 'base')))).toBe(true)
    }
  })

  test('--unsafe does what qemu-img does, and what nothing stands on is resized as ever', async () => {
    const cwd = await stack()
    expect(await runCli(['resize', '--unsafe', 'base', '3M'], { cwd })).toMatchObject({
      status: 0,
      stdout: 'Image resized.\n',
      stderr: '',
    })
    expect(await runCli(['resize', 'top.qcow2', '3M'], { cwd })).toMatchObject({ status: 0 })
    expect(
      await runCli(['resize', 'base', '3M'], { cwd }),
      'to the size that it has',
    ).toMatchObject({ status: 0 })
  })

  test('overlays elsewhere are found in the folders that are named', async () => {
    const folder = await stack()
    const cwd = join(folder, 'clones')
    expect(await runCli(['resize', 'far.qcow2', '3M'], { cwd })).toMatchObject({ status: 0 })
    const named = await runCli(['resize', '--search', 'clones', 'base', '3M'], { cwd: folder })
    expect(named.stderr).toContain('clones/far.qcow2')
    const missing = await runCli(['resize', '--search', 'none', 'clones/far.qcow2', '4M'], {
      cwd: folder,
    })
    expect(missing.status).toBe(1)
    expect(missing.stderr).toContain('[SEARCH_INCOMPLETE]')
  })

  test('io reads a base that has overlays, and does not write to it unless told', async () => {
    for (const format of ['raw', 'qcow2'] as const) {
      const cwd = await stack(format)
      const before = readFileSync(join(cwd, 'base'))
      const io = (...words: string[]) => runCli(['io', '-f', format, ...words, 'base'], { cwd })
      expect((await io('-c', 'read -P 7 0 2M')).status).toBe(0)
      for (const line of ['write 0 64k', 'discard 0 64k', 'writev 0 512', 'truncate 1M']) {
        const result = await io('-c', 'read 0 512', '-c', line, '-c', 'read 0 512')
        expect(result.status).toBe(1)
        expect(result.stderr).toContain(
          'cowpoint: base: io would change what 2 overlays above it and their 1 internal snapshots read: ',
        )
        // The script ends there.
        expect(result.stdout.match(/read 512/g)).toHaveLength(1)
      }
      expect(before.equals(readFileSync(join(cwd, 'base')))).toBe(true)
      expect((await io('--unsafe', '-c', 'write -P 8 0 64k')).status).toBe(0)
      await qemuIoOk(join(cwd, 'top.qcow2'), ['read -P 8 0 64k'])
    }
  })
})

describeWithQemu('snapshots of a base that has overlays', () => {
  test('going back to one is refused, taking and deleting one is not', async () => {
    const cwd = await stack()
    expect(await runCli(['snapshot', '-c', 'then', 'base'], { cwd })).toMatchObject({ status: 0 })
    const refused = await runCli(['snapshot', '-a', 'then', 'base'], { cwd })
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('[BASE_HAS_OVERLAYS]')
    expect(await runCli(['snapshot', '--unsafe', '-a', 'then', 'base'], { cwd })).toMatchObject({
      status: 0,
    })
    expect(await runCli(['snapshot', '-d', 'then', 'base'], { cwd })).toMatchObject({ status: 0 })
  })
})

describeWithQemu('verbs that put a new image in the place of a file', () => {
  const verbs = (target: string): readonly (readonly string[])[] => [
    ['create', '-q', '-f', 'qcow2', target, '1M'],
    ['create', '-q', '-f', 'raw', target, '1M'],
    ['convert', '-O', 'qcow2', '-f', 'raw', 'new.raw', target],
    ['convert', '-O', 'raw', '-f', 'raw', 'new.raw', target],
    ['convert', '-n', '-O', 'qcow2', '-f', 'raw', 'new.raw', target],
    ['dd', '-O', 'qcow2', '-f', 'raw', 'if=new.raw', `of=${target}`],
    ['create', '-q', '-f', 'qcow2', '-o', `data_file=${target}`, 'other.qcow2', '1M'],
  ]

  async function withSource(): Promise<string> {
    const cwd = await stack()
    await qemuImgOk(['create', '-q', '-f', 'raw', 'new.raw', '1M'], { cwd })
    return cwd
  }

  test('leave a file alone that overlays stand on, and name them', async () => {
    const cwd = await withSource()
    const before = readFileSync(join(cwd, 'base'))
    for (const words of verbs('base')) {
      const result = await runCli(words, { cwd })
      expect(result).toMatchObject({ status: 1, stdout: '' })
      expect(result.stderr).toContain('would change what 2 overlays above it and their 1 internal')
      expect(result.stderr).toContain("hint: 'cowpoint rebase -b '' over.qcow2'")
      expect(result.stderr).toContain('[BASE_HAS_OVERLAYS]')
      expect(before.equals(readFileSync(join(cwd, 'base')))).toBe(true)
    }
  })

  test('replace it with --unsafe, and what nothing stands on as ever', async () => {
    for (const index of verbs('base').keys()) {
      const cwd = await withSource()
      const [verb = '', ...rest] = verbs('base')[index] ?? []
      const forced = await runCli([verb, '--unsafe', ...rest], { cwd })
      expect(forced).toMatchObject({ status: 0, stderr: '' })
      const top = verbs('top.qcow2')[index] ?? []
      expect(await runCli(top, { cwd })).toMatchObject({ status: 0, stderr: '' })
    }
  })

  test('find overlays in the folders that are named', async () => {
    const folder = await withSource()
    const words = ['create', '-q', '-f', 'raw', '--search', 'clones', 'base', '1M']
    const result = await runCli(words, { cwd: folder })
    expect(result.status).toBe(1)
    expect(result.stderr).toContain('clones/far.qcow2')
  })
})
