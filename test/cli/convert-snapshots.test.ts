import { statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { contentDigest } from '../../src/block/index.ts'
import { openChain } from '../../src/chain/index.ts'
import type { Qcow2Image, SnapshotRecord } from '../../src/qcow2/index.ts'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const { whole } = imageManifest()

/** All that a copy must have of a snapshot. */
async function described(image: Qcow2Image, snapshot: SnapshotRecord) {
  const { id, name, date, vmClock, icount, vmStateSize, unknownExtra } = snapshot
  await using view = await image.openSnapshot(snapshot)
  const vmState = new Uint8Array(vmStateSize)
  await image.readVmState(0, vmState, snapshot)
  return {
    ...{ id, name, date, vmClock, icount, vmStateSize },
    unknownExtra: Buffer.from(unknownExtra).toString('hex'),
    size: view.size,
    content: await contentDigest(view),
    vmState: Buffer.from(vmState).toString('hex'),
  }
}

/** The disk of an image, and each of its snapshots. */
async function viewsOf(path: string) {
  await using chain = await openChain(path)
  const image = chain.active.image as Qcow2Image
  const snapshots = []
  for (const snapshot of image.snapshots) snapshots.push(await described(image, snapshot))
  return { size: image.size, content: await contentDigest(image), snapshots }
}

async function expectSound(path: string): Promise<void> {
  const check = await qemuImg(['check', path])
  expect(check.stdout + check.stderr).toContain('No errors were found on the image.')
  expect(check.status).toBe(0)
}

async function copyAll(cwd: string, source: string, words: readonly string[]): Promise<string> {
  const target = join(cwd, 'copy.qcow2')
  const all = ['convert', '--snapshots', '-O', 'qcow2', ...words, source, target]
  expect(await runCli(all, { cwd })).toMatchObject({ status: 0, stderr: '' })
  await expectSound(target)
  return target
}

const images = [
  'snapshots',
  'snapshots-extra-data',
  'snapshots-names',
  'snapshots-many',
  'snapshots-vm-state',
  'snapshots-sizes',
  'snapshots-v2',
  'snapshots-v2-no-extra',
  'compressed-snapshot',
  'extended-l2-snapshots',
  'chain-snapshots',
]

const layouts = [
  [],
  ['-c'],
  ['-o', 'cluster_size=512,refcount_bits=64'],
  ['-c', '-o', 'extended_l2=on,compression_type=zstd,cluster_size=16k'],
]

describeWithQemu('convert --snapshots', () => {
  test.each(images)('keeps every view of %s in every layout', async (name) => {
    const image = whole.find((one) => one.name === name)
    const cwd = tempFolder()
    const source = unpackImage(image!, cwd)
    const before = await viewsOf(source)
    expect(before.snapshots.length).toBeGreaterThan(0)
    for (const words of layouts) {
      const copy = await copyAll(cwd, source, words)
      expect(await viewsOf(copy)).toEqual(before)
      const [ours, theirs] = await Promise.all([
        qemuImgOk(['snapshot', '-l', copy]),
        qemuImgOk(['snapshot', '-l', source]),
      ])
      expect(ours).toBe(theirs)
    }
  })

  test('makes a version 2 image where the sizes allow it', async () => {
    const cwd = tempFolder()
    const source = unpackImage(whole.find(({ name }) => name === 'snapshots')!, cwd)
    const copy = await copyAll(cwd, source, ['-o', 'compat=0.10'])
    expect(await viewsOf(copy)).toEqual(await viewsOf(source))
    const sizes = unpackImage(whole.find(({ name }) => name === 'snapshots-sizes')!, cwd)
    const words = ['convert', '--snapshots', '-O', 'qcow2', '-o', 'compat=0.10', sizes, 'no.qcow2']
    const refused = await runCli(words, { cwd })
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('[RESIZE_SNAPSHOTS]')
    expect(() => statSync(join(cwd, 'no.qcow2'))).toThrow()
  })

  test('what snapshots share takes its space once', async () => {
    const cwd = tempFolder()
    const source = join(cwd, 'disk.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', source, '64M'])
    await qemuIoOk(source, ['write -P 1 0 16M'])
    for (const [index, name] of ['one', 'two', 'three'].entries()) {
      await qemuImgOk(['snapshot', '-c', name, source])
      await qemuIoOk(source, [`write -P ${index + 5} ${index}M 64k`])
    }
    const copy = await copyAll(cwd, source, [])
    expect(statSync(copy).size).toBeLessThanOrEqual(statSync(source).size + 512 * 1024)
    expect(await viewsOf(copy)).toEqual(await viewsOf(source))
  })

  test('with -B the copy stands on the backing file, each view of it', async () => {
    const cwd = tempFolder()
    const source = unpackImage(whole.find(({ name }) => name === 'chain-snapshots')!, cwd)
    const before = await viewsOf(source)
    const small = ['-o', 'cluster_size=4k']
    for (const words of [small, ['-c', ...small], []]) {
      const copy = await copyAll(cwd, source, ['-B', 'base.qcow2', '-F', 'qcow2', ...words])
      expect(await viewsOf(copy)).toEqual(before)
      if (words.length > 0) expect(statSync(copy).size).toBeLessThan(128 * 1024)
    }
    await qemuImgOk(['create', '-q', '-f', 'raw', join(cwd, 'other.raw'), '100k'])
    await qemuIoOk(join(cwd, 'other.raw'), ['write -P 2 0 100k'], { format: 'raw' })
    const other = await copyAll(cwd, source, ['-B', 'other.raw', '-F', 'raw'])
    expect(await viewsOf(other)).toEqual(before)
  })

  test('bitmaps go along when they are asked for', async () => {
    const cwd = tempFolder()
    const source = join(cwd, 'disk.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', source, '4M'])
    await qemuImgOk(['snapshot', '-c', 'one', source])
    await qemuImgOk(['bitmap', '--add', source, 'since'])
    await qemuIoOk(source, ['write -P 1 1M 64k'])
    const copy = await copyAll(cwd, source, ['--bitmaps'])
    const dump = (path: string) => runCli(['bitmap', '--dump', path, 'since'], { cwd })
    expect((await dump(copy)).stdout).toBe((await dump(source)).stdout)
  })

  test('is refused where there can be no snapshots', async () => {
    const cwd = tempFolder()
    const source = unpackImage(whole.find(({ name }) => name === 'snapshots')!, cwd)
    await qemuImgOk(['create', '-q', '-f', 'raw', join(cwd, 'raw'), '1M'])
    for (const [words, code] of [
      [['-O', 'raw', source, 'x'], 'SNAPSHOTS_NOT_SUPPORTED'],
      [['-f', 'raw', '-O', 'qcow2', 'raw', 'x'], 'SNAPSHOTS_NOT_SUPPORTED'],
      [['-O', 'qcow2', '-o', 'data_file=data', source, 'x'], 'SNAPSHOTS_NOT_SUPPORTED'],
      [['-O', 'qcow2', source, source, 'x'], 'NOT_SUPPORTED'],
      [['-O', 'qcow2', source, '-'], 'NOT_SUPPORTED'],
      [['-O', 'qcow2', '-l', '1', source, 'x'], 'CONFLICTING_OPTIONS'],
      [['-O', 'qcow2', '-n', source, 'x'], 'CONFLICTING_OPTIONS'],
      [['-O', 'qcow2', '--salvage', source, 'x'], 'CONFLICTING_OPTIONS'],
    ] as const) {
      const result = await runCli(['convert', '--snapshots', ...words], { cwd })
      expect(result.stderr).toContain(`[${code}]`)
      expect(result.status).toBe(1)
      expect(() => statSync(join(cwd, 'x'))).toThrow()
    }
  })
})
