import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { commitLayer } from '../../src/chain/index.ts'
import { nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** base ← mid ← top; mid holds 64k to 128k, and top what the line writes. */
function family(...lines: readonly string[]): string {
  const cwd = tempFolder()
  const all = [
    'qemu-img create -q -f qcow2 base.qcow2 1M',
    "qemu-io -c 'write -P 1 0 512k' base.qcow2",
    'qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2',
    "qemu-io -c 'write -P 2 64k 64k' mid.qcow2",
    'qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2',
    ...lines,
  ]
  execFileSync('sh', ['-e', '-c', all.join('\n')], { cwd, stdio: 'pipe' })
  return cwd
}

function rawOf(cwd: string, name: string): Buffer {
  execFileSync('qemu-img', ['convert', '-O', 'raw', name, 'view.raw'], { cwd })
  return readFileSync(join(cwd, 'view.raw'))
}

const COMMIT = ['commit', '-b', 'base.qcow2', 'top.qcow2']

describeWithQemu('commit past a layer', () => {
  test('is refused where that layer would read something else, with what to do instead', async () => {
    const cwd = family("qemu-io -c 'write -P 3 192k 64k' top.qcow2")
    const [base, mid, top] = ['base.qcow2', 'mid.qcow2', 'top.qcow2'].map((name) =>
      rawOf(cwd, name),
    )
    const refused = await runCli(COMMIT, { cwd })
    expect(refused).toMatchObject({ status: 1, stdout: '' })
    expect(refused.stderr).toContain('mid.qcow2 [LAYERS_BETWEEN]')
    expect(refused.stderr).toContain("'cowpoint commit top.qcow2' goes one layer down")
    expect(rawOf(cwd, 'base.qcow2').equals(base!)).toBe(true)
    expect(rawOf(cwd, 'mid.qcow2').equals(mid!)).toBe(true)
    expect(await runCli([...COMMIT, '--unsafe'], { cwd })).toMatchObject({ status: 0 })
    expect(rawOf(cwd, 'base.qcow2').equals(top!)).toBe(true)
    expect(rawOf(cwd, 'mid.qcow2').equals(mid!)).toBe(false)
  })

  test('layer by layer it comes to the same', async () => {
    const cwd = family("qemu-io -c 'write -P 3 192k 64k' top.qcow2")
    const top = rawOf(cwd, 'top.qcow2')
    for (const name of ['top.qcow2', 'mid.qcow2']) {
      expect(await runCli(['commit', name], { cwd })).toMatchObject({ status: 0 })
    }
    for (const name of ['base.qcow2', 'mid.qcow2', 'top.qcow2']) {
      expect(rawOf(cwd, name).equals(top)).toBe(true)
    }
  })

  test('goes on where that layer holds itself what changes below it, or nothing does', async () => {
    for (const line of [
      "qemu-io -c 'write -P 3 96k 16k' top.qcow2",
      "qemu-io -c 'write -P 1 192k 64k' top.qcow2",
      'true',
    ]) {
      const cwd = family(line)
      const [mid, top] = [rawOf(cwd, 'mid.qcow2'), rawOf(cwd, 'top.qcow2')]
      expect(await runCli(COMMIT, { cwd })).toMatchObject({ status: 0, stderr: '' })
      expect(rawOf(cwd, 'mid.qcow2').equals(mid)).toBe(true)
      expect(rawOf(cwd, 'base.qcow2').equals(top)).toBe(true)
    }
  })

  test('a base that grows under a longer layer is noticed too', async () => {
    const cwd = family(
      'qemu-img resize -q mid.qcow2 2M',
      'qemu-img resize -q top.qcow2 2M',
      "qemu-io -c 'write -P 3 1536k 64k' top.qcow2",
    )
    expect((await runCli(COMMIT, { cwd })).stderr).toContain('[LAYERS_BETWEEN]')
  })
})

describeWithQemu('the guard of commit', () => {
  test('looks through the folder once', async () => {
    const cwd = family()
    let listed = 0
    const list: typeof nodeFiles.list = (...args) => {
      listed++
      return nodeFiles.list(...args)
    }
    const files = new Proxy(nodeFiles, {
      get: (target, name) => (name === 'list' ? list : Reflect.get(target, name)),
    })
    await commitLayer(join(cwd, 'mid.qcow2'), { files })
    expect(listed).toBe(1)
  })
})
