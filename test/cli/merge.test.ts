/** The commands commit, rebase and stream: what they print, and what they say where they refuse. */

import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { describeWithQemu } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

function family(...lines: readonly string[]): string {
  const folder = tempFolder()
  const all = [
    'qemu-img create -q -f qcow2 base.qcow2 1M',
    "qemu-io -c 'write -P 1 0 512k' base.qcow2",
    'qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2',
    "qemu-io -c 'write -P 2 64k 64k' mid.qcow2",
    'qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2',
    "qemu-io -c 'write -P 3 192k 64k' top.qcow2",
    ...lines,
  ]
  execFileSync('sh', ['-e', '-c', all.join('\n')], { cwd: folder, stdio: 'pipe' })
  return folder
}

function shell(cwd: string, line: string): string {
  return execFileSync('sh', ['-e', '-c', line], { cwd, stdio: 'pipe' }).toString()
}

describeWithQemu('the verbs that merge layers', () => {
  test('stream without options leaves an image that stands alone, silently', async () => {
    const cwd = family('qemu-img convert -O raw top.qcow2 view.raw')
    const result = await runCli(['stream', 'top.qcow2'], { cwd })
    expect(result).toMatchObject({ status: 0, stdout: '', stderr: '' })
    expect(shell(cwd, 'rm base.qcow2 mid.qcow2; qemu-img check top.qcow2')).toContain('No errors')
    expect(shell(cwd, 'qemu-img compare -F raw top.qcow2 view.raw')).toContain('identical')
  })

  test('stream --base keeps that layer', async () => {
    const cwd = family('qemu-img convert -O raw top.qcow2 view.raw')
    const words = ['stream', '-p', '--base', 'base.qcow2', 'top.qcow2']
    const result = await runCli(words, { cwd })
    expect(result.status).toBe(0)
    expect(result.stdout).toContain('(100.00/100%)')
    expect(shell(cwd, 'rm mid.qcow2; qemu-img info top.qcow2')).toContain('file: base.qcow2')
    expect(shell(cwd, 'qemu-img compare -F raw top.qcow2 view.raw')).toContain('identical')
  })

  test('stream to a layer that there is not is a usage error', async () => {
    const result = await runCli(['stream', '--base', 'else', 'top.qcow2'], { cwd: family() })
    expect(result.status).toBe(64)
    expect(result.stderr).toContain("Did not find 'else' in the backing chain of 'top.qcow2'")
  })

  test('commit names the other overlay and the command that makes it independent', async () => {
    const cwd = family('qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 second.qcow2')
    const result = await runCli(['commit', 'mid.qcow2'], { cwd })
    expect(result.status).toBe(1)
    expect(result.stderr).toContain('second.qcow2 [BASE_HAS_OVERLAYS]')
    expect(result.stderr).toContain("cowpoint rebase -b '' second.qcow2")
    expect((await runCli(['rebase', '-b', '', 'second.qcow2'], { cwd })).status).toBe(0)
    expect(await runCli(['commit', 'mid.qcow2'], { cwd })).toMatchObject({
      status: 0,
      stdout: 'Image committed.\n',
    })
  })

  test('commit and rebase name the snapshots that would change and how to save them', async () => {
    const cwd = family(
      'qemu-img snapshot -c monday top.qcow2',
      "qemu-io -c 'write -P 4 256k 64k' top.qcow2",
    )
    const refused = await runCli(['commit', '-b', 'base.qcow2', 'top.qcow2'], { cwd })
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('monday (1) [LAYER_HAS_SNAPSHOTS]')
    const result = await runCli(['rebase', '-b', '', 'top.qcow2'], { cwd })
    expect(result.stderr).toContain('monday (1) [LAYER_HAS_SNAPSHOTS]')
    expect(result.stderr).toContain(
      'cowpoint convert -l snapshot.id=1 -O qcow2 top.qcow2 top.qcow2.1.qcow2',
    )
    expect((await runCli(['rebase', '--unsafe', '-b', '', 'top.qcow2'], { cwd })).status).toBe(0)
  })

  test('rebase -u onto another content is refused with the way out', async () => {
    const cwd = family('qemu-img create -q -f qcow2 wrong.qcow2 1M')
    const words = ['rebase', '-u', '-b', 'wrong.qcow2', '-F', 'qcow2', 'mid.qcow2']
    const result = await runCli(words, { cwd })
    expect(result.status).toBe(1)
    expect(result.stderr).toContain('[BASE_DIFFERS]')
    expect(result.stderr).toContain('without -u what differs is copied')
  })
})
