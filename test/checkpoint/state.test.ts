import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { CheckpointCatalogue, resumeCheckpoints } from '../../src/checkpoint/index.ts'
import { buildChain } from '../../src/testing/index.ts'
import { bhyveFiles, libvirtSave, qemuStream } from '../machine/state-fixtures.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

describe('state of a machine in a checkpoint', () => {
  let cwd = ''
  beforeEach(async () => {
    cwd = tempFolder()
    await buildChain('disk 4M 0+64k=1', { folder: cwd })
  })

  const put = (name: string, bytes: Uint8Array | string): void =>
    writeFileSync(join(cwd, name), bytes)
  const checkpoint = (...words: string[]) => runCli(['checkpoint', ...words], { cwd })
  const jsonOf = async (...words: string[]) =>
    JSON.parse((await checkpoint(...words, '--json')).stdout)

  function putBhyve(name: string): void {
    const { memory, kernel, meta } = bhyveFiles()
    put(name, memory)
    put(`${name}.kern`, kernel)
    put(`${name}.meta`, JSON.stringify(meta))
  }

  test('is copied beside the disks, shown, checked and put back', async () => {
    putBhyve('clean')
    put('vars.fd', 'variables')
    const made = await checkpoint(
      'create',
      'clean',
      'disk.qcow2',
      '--state',
      'clean',
      '--state',
      'nvram=vars.fd',
    )
    expect(made).toMatchObject({ status: 0, stderr: '' })
    const shown = await jsonOf('show', 'clean', 'disk.qcow2')
    expect(shown.consistency).toBe('memory')
    const kinds = shown['state-files'].map(
      ({ kind, stored }: Record<string, string>) => `${kind} ${stored}`,
    )
    expect(kinds).toEqual([
      'bhyve-memory copied',
      'bhyve-kernel copied',
      'bhyve-meta copied',
      'nvram copied',
    ])

    for (const name of ['clean', 'clean.kern', 'clean.meta', 'vars.fd']) rmSync(join(cwd, name))
    expect(await checkpoint('verify', 'disk.qcow2')).toMatchObject({ status: 0 })
    const back = await checkpoint('restore', 'clean', 'disk.qcow2', '--state-to', cwd)
    expect(back.status).toBe(0)
    expect(back.stdout).toContain(`State: ${join(cwd, 'clean.kern')}\n`)
    expect(JSON.parse(readFileSync(join(cwd, 'clean.meta'), 'utf8'))).toEqual(bhyveFiles().meta)
    // What is there already is not written over.
    expect(await checkpoint('restore', 'clean', 'disk.qcow2', '--state-to', cwd)).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('clean is there already [FILE_EXISTS]'),
    })
  })

  test('goes with its checkpoint', async () => {
    put('mem', qemuStream())
    await checkpoint('create', 'one', 'disk.qcow2', '--state', 'mem')
    const [id = ''] = readdirSync(join(cwd, '.cowpoint/state'))
    expect(await checkpoint('delete', 'one', 'disk.qcow2')).toMatchObject({ status: 0 })
    expect(existsSync(join(cwd, '.cowpoint/state', id, 'mem'))).toBe(false)
  })

  test('that only is referred to stays where it is', async () => {
    put('mem', libvirtSave(qemuStream()))
    await checkpoint('create', 'one', 'disk.qcow2', '--state', 'mem', '--state-mode', 'reference')
    expect(existsSync(join(cwd, '.cowpoint/state'))).toBe(false)
    expect((await checkpoint('restore', 'one', 'disk.qcow2')).stdout).toContain(
      `State: ${join(cwd, 'mem')}`,
    )
    put('mem', libvirtSave(qemuStream('pc-q35-8.0')))
    expect(await checkpoint('restore', 'one', 'disk.qcow2')).toMatchObject({
      status: 65,
      stderr: expect.stringContaining('[STATE_CHANGED]'),
    })
    expect((await checkpoint('verify', 'disk.qcow2')).stdout).toContain('STATE_FILE_CHANGED')
    const forced = await checkpoint('restore', 'one', 'disk.qcow2', '--ignore-state')
    expect(forced.status).toBe(0)
  })

  test('that a hypervisor would refuse makes no checkpoint', async () => {
    put('mem', libvirtSave(qemuStream(), { magic: 'LibvirtQemudPart' }))
    const failed = await checkpoint('create', 'one', 'disk.qcow2', '--state', 'mem')
    expect(failed).toMatchObject({ status: 65, stderr: expect.stringContaining('[STATE_DAMAGED]') })
    expect((await jsonOf('list', 'disk.qcow2')).checkpoints ?? []).toEqual([])
  })

  test('leaves nothing behind where no checkpoint comes about', async () => {
    put('mem', qemuStream())
    await checkpoint('create', 'one', 'disk.qcow2')
    const failed = await checkpoint('create', 'one', 'disk.qcow2', '--state', 'mem')
    expect(failed).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('[CHECKPOINT_EXISTS]'),
    })
    const dry = await checkpoint('create', 'two', 'disk.qcow2', '--state', 'mem', '--dry-run')
    expect(dry.stdout).toMatch(/keep \.cowpoint\/state\/[0-9a-f]{32}\/mem/)
    const states = join(cwd, '.cowpoint/state')
    expect(existsSync(states) ? readdirSync(states) : []).toEqual([])
  })

  test('that a cut left without a checkpoint is removed by resume', async () => {
    put('mem', qemuStream())
    await checkpoint('create', 'one', 'disk.qcow2', '--state', 'mem')
    const catalogue = await CheckpointCatalogue.find({ images: [join(cwd, 'disk.qcow2')] })
    const orphan = catalogue.stateFolder('00'.repeat(16))
    await catalogue.files.makeFolder(orphan)
    writeFileSync(join(orphan, 'mem'), 'half')
    const { removed } = await resumeCheckpoints(catalogue)
    expect(removed).toEqual([orphan])
    expect(readdirSync(catalogue.inside('state'))).toHaveLength(1)
  })

  test('tells how the machine is started', async () => {
    putBhyve('clean')
    await checkpoint('create', 'clean', 'disk.qcow2', '--state', 'clean')
    const lines = (await checkpoint('run-args', 'clean', 'disk.qcow2')).stdout.trim().split('\n')
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(/^bhyve -c 2 -m 1M .*ahci-hd,\/.*disk\.qcow2 .* -r clean guest$/)
    await checkpoint('create', 'bare', 'disk.qcow2')
    const other = await checkpoint('run-args', 'clean', 'disk.qcow2')
    expect(other.stderr).toContain("'cowpoint checkpoint restore' comes first")
    expect((await jsonOf('run-args', 'bare', 'disk.qcow2')).lines).toHaveLength(2)
  })
})
