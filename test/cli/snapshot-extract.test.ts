import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { unpackImage } from '../support/image-matrix.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1024 * 1024

describeWithQemu('snapshot -x', () => {
  test('makes raw and qcow2 images that read as the snapshot, in its own size', async () => {
    const cwd = tempFolder()
    unpackImage('snapshots-sizes', cwd)
    // qemu-img gives every snapshot the size that the disk has now.
    const large = Buffer.alloc(4 * MIB)
    large.fill(1, 0, 256 * 1024).fill(2, 3 * MIB, 3 * MIB + 65536)
    for (const [name, expected] of [
      ['small', Buffer.alloc(256 * 1024, 1)],
      ['large', large],
      ['odd', Buffer.alloc(130560, 1)],
    ] as const) {
      const raw = await runCli(['snapshot', '-x', name, 'disk.qcow2', 'ours.raw'], { cwd })
      expect(raw).toMatchObject({ status: 0, stdout: '', stderr: '' })
      expect(expected.equals(readFileSync(join(cwd, 'ours.raw')))).toBe(true)
      const words = ['snapshot', '-x', name, '-O', 'qcow2', 'disk.qcow2', 'ours.qcow2']
      expect(await runCli(words, { cwd })).toMatchObject({ status: 0, stderr: '' })
      await qemuImgOk(['compare', '-f', 'raw', 'ours.raw', 'ours.qcow2'], { cwd })
      await qemuImgOk(['check', 'ours.qcow2'], { cwd })
    }
  })

  test('reads through to the backing file, and leaves the image as it is', async () => {
    const cwd = tempFolder()
    const source = unpackImage('chain-snapshots', cwd)
    const before = readFileSync(source)
    await qemuImgOk(['convert', '-l', 'changed', '-O', 'raw', source, 'theirs.raw'], { cwd })
    const words = ['snapshot', '--extract', '2', source, 'ours.raw']
    expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
    const [ours, theirs] = ['ours.raw', 'theirs.raw'].map((name) => readFileSync(join(cwd, name)))
    expect(theirs?.equals(ours as Buffer)).toBe(true)
    expect(before.equals(readFileSync(source))).toBe(true)
  })

  test('writes the VM state as it is, with or without the disk', async () => {
    const cwd = tempFolder()
    unpackImage('snapshots-vm-state', cwd)
    const words = ['snapshot', '-x', 'running', '--vm-state', 'state', 'disk.qcow2']
    expect(await runCli(words, { cwd })).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(join(cwd, 'state')).equals(Buffer.alloc(20480, 0xee))).toBe(true)
    expect(await runCli([...words, 'disk.raw'], { cwd })).toMatchObject({ status: 0 })
    expect(statSync(join(cwd, 'disk.raw')).size).toBe(256 * 1024)
    const none = ['snapshot', '-x', 'stopped', '--vm-state', 'none', 'disk.qcow2', 'no.raw']
    const refused = await runCli(none, { cwd })
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('[NO_VM_STATE]')
    expect(existsSync(join(cwd, 'none')) || existsSync(join(cwd, 'no.raw'))).toBe(false)
  })

  test('overwrites neither the image nor what overlays stand on', async () => {
    const cwd = tempFolder()
    unpackImage('chain-snapshots', cwd)
    await qemuImgOk(['create', '-q', '-f', 'raw', 'far.raw', '1M'], { cwd })
    const over = ['create', '-q', '-f', 'qcow2', '-b', 'far.raw', '-F', 'raw', 'over.qcow2']
    await qemuImgOk(over, { cwd })
    await qemuIoOk(join(cwd, 'far.raw'), ['write -P 5 0 1M'], { format: 'raw' })
    for (const [target, code] of [
      ['top.qcow2', 'TARGET_IS_SOURCE'],
      ['base.qcow2', 'TARGET_IS_SOURCE'],
      ['far.raw', 'BASE_HAS_OVERLAYS'],
    ] as const) {
      const result = await runCli(['snapshot', '-x', 'changed', 'top.qcow2', target], { cwd })
      expect(result.status).toBe(1)
      expect(result.stderr).toContain(`[${code}]`)
    }
    const forced = ['snapshot', '-x', 'changed', '--unsafe', 'top.qcow2', 'far.raw']
    expect(await runCli(forced, { cwd })).toMatchObject({ status: 0 })
  })

  test('what belongs to -x is refused without it, and -x needs somewhere to write', async () => {
    const cwd = tempFolder()
    unpackImage('snapshots', cwd)
    for (const [words, code] of [
      [['disk.qcow2', 'x'], 'EXTRA_ARGUMENT'],
      [['-O', 'qcow2', 'disk.qcow2'], 'CONFLICTING_OPTIONS'],
      [['--vm-state', 'x', '-l', 'disk.qcow2'], 'CONFLICTING_OPTIONS'],
      [['-x', '1', '-l', 'disk.qcow2', 'x'], 'CONFLICTING_OPTIONS'],
      [['-x', '1', 'disk.qcow2'], 'MISSING_ARGUMENT'],
      [['-x', 'never', 'disk.qcow2', 'x'], 'SNAPSHOT_NOT_FOUND'],
      [['-x', '1', '-O', 'vmdk', 'disk.qcow2', 'x'], 'UNKNOWN_FORMAT'],
      [['-x', '1', '-f', 'raw', 'disk.qcow2', 'x'], 'NOT_SUPPORTED'],
    ] as const) {
      const result = await runCli(['snapshot', ...words], { cwd })
      expect(result.stderr).toContain(`[${code}]`)
      expect(result.status).toBe(1)
      expect(existsSync(join(cwd, 'x'))).toBe(false)
    }
  })
})
