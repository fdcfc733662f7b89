import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** base.qcow2 with two snapshots ← over.qcow2, and a raw copy of base. */
async function stack(): Promise<string> {
  const cwd = tempFolder()
  const base = join(cwd, 'base.qcow2')
  await qemuImgOk(['create', '-q', '-f', 'qcow2', base, '4M'])
  await qemuIoOk(base, ['write -P 1 0 1M'])
  await qemuImgOk(['snapshot', '-c', 'monday', base])
  await qemuIoOk(base, ['write -P 2 64k 512', 'write -z 512k 128k'])
  await qemuImgOk(['snapshot', '-c', 'friday', base])
  await qemuIoOk(base, ['write -P 3 2M 64k'])
  const cow = ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2']
  await qemuImgOk(cow, { cwd })
  await qemuIoOk(join(cwd, 'over.qcow2'), ['write -P 4 3M 64k'])
  await qemuImgOk(['convert', '-O', 'raw', base, join(cwd, 'base.raw')])
  return cwd
}

const HEAD = 'Offset          Length          Kind\n'

describeWithQemu('diff', () => {
  test('shows what changed between two snapshots, and since one', async () => {
    const cwd = await stack()
    const between = await runCli(['diff', '--from', 'monday', '--to', '2', 'base.qcow2'], { cwd })
    expect(between).toMatchObject({ status: 0, stderr: '' })
    expect(between.stdout).toBe(
      `${HEAD}0x10000         0x10000         data\n0x80000         0x20000         zero\n` +
        '196608 bytes (192 KiB) in 2 extents\n',
    )
    const since = await runCli(['diff', '--from', 'friday', 'base.qcow2'], { cwd })
    expect(since.stdout).toBe(
      `${HEAD}0x200000        0x10000         data\n65536 bytes (64 KiB) in 1 extent\n`,
    )
  })

  test('shows to the byte what differs if it may read', async () => {
    const cwd = await stack()
    const words = ['diff', '--content', '--output', 'json', '--from', 'monday', '--to', 'friday']
    const exact = await runCli([...words, 'base.qcow2'], { cwd })
    expect(JSON.parse(exact.stdout)).toEqual({
      from: { filename: 'base.qcow2', snapshot: '1', name: 'monday', 'virtual-size': 4194304 },
      to: { filename: 'base.qcow2', snapshot: '2', name: 'friday', 'virtual-size': 4194304 },
      exact: true,
      extents: [
        { offset: 65536, length: 512, kind: 'data' },
        { offset: 524288, length: 131072, kind: 'zero' },
      ],
      'changed-bytes': 131584,
    })
    const coarse = await runCli([...words, '-g', '4k', 'base.qcow2'], { cwd })
    expect(JSON.parse(coarse.stdout).extents[0]).toEqual({
      offset: 65536,
      length: 4096,
      kind: 'data',
    })
  })

  test('one image is compared with what it stands on, two with each other', async () => {
    const cwd = await stack()
    const own = await runCli(['diff', 'over.qcow2'], { cwd })
    expect(own.stdout).toBe(
      `${HEAD}0x300000        0x10000         data\n65536 bytes (64 KiB) in 1 extent\n`,
    )
    const pair = await runCli(['diff', '--from', 'friday', 'base.qcow2', 'over.qcow2'], { cwd })
    expect(pair.stdout).toBe(
      `${HEAD}0x200000        0x10000         data\n0x300000        0x10000         data\n` +
        '131072 bytes (128 KiB) in 2 extents\n',
    )
    const equal = ['diff', '--exit-code', '--content', '-F', 'raw', 'base.qcow2', 'base.raw']
    expect(await runCli(equal, { cwd })).toMatchObject({
      status: 0,
      stdout: `${HEAD}0 bytes (0 B) in 0 extents\n`,
    })
    const maybe = await runCli(['diff', '-F', 'raw', 'base.qcow2', 'base.raw'], { cwd })
    expect(maybe.stdout).toContain('data\n')
  })

  test('says by its status that something changed only when asked', async () => {
    const cwd = await stack()
    const words = ['diff', '--from', 'monday', 'base.qcow2']
    expect((await runCli(words, { cwd })).status).toBe(0)
    expect((await runCli([...words, '--exit-code'], { cwd })).status).toBe(1)
  })

  test('refuses what cannot be', async () => {
    const cwd = await stack()
    const nothing = await runCli(['diff', 'base.qcow2'], { cwd })
    expect(nothing).toMatchObject({ status: 64, stdout: '' })
    expect(nothing.stderr).toContain('[NO_BACKING]')
    const unknown = await runCli(['diff', '--from', 'never', 'base.qcow2'], { cwd })
    expect(unknown.stderr).toContain('[SNAPSHOT_NOT_FOUND]')
    const loose = await runCli(['diff', '-g', '4k', 'over.qcow2'], { cwd })
    expect(loose).toMatchObject({ status: 64 })
    expect(loose.stderr).toContain('[CONFLICTING_OPTIONS]')
    const odd = await runCli(['diff', '--content', '-g', '3k', 'over.qcow2'], { cwd })
    expect(odd.stderr).toContain('[INVALID_GRANULARITY]')
  })
})
