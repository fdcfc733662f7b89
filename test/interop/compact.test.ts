/** Compacted images in the eyes of the real tools: sound, the same content in every view, and as long as was foretold. */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'
import { wornImage } from '../support/worn-image.ts'

/** Compacts as the dry run foretells and returns how many bytes shorter the file is. */
async function compactWith(path: string, ...words: string[]): Promise<number> {
  const plan = await runCli(['compact', '--dry-run', '--json', ...words, path])
  expect([plan.status, plan.stderr]).toEqual([0, ''])
  const before = statSync(path).size
  const done = await runCli(['compact', '--json', ...words, path])
  expect([done.status, done.stderr]).toEqual([0, ''])
  const foretold = JSON.parse(plan.stdout)
  expect(JSON.parse(done.stdout)).toEqual({ ...foretold, 'dry-run': false })
  const { size } = statSync(path)
  expect(size).toBe(foretold['file-size'])
  return before - size
}

/** SHA-256 of what qemu-img reads: of the disk, and of snapshots by id. */
async function viewsOf(path: string, ids: readonly string[]): Promise<string[]> {
  const cwd = dirname(path)
  const all: string[] = []
  for (const words of [[], ...ids.map((id) => ['-l', `snapshot.id=${id}`])]) {
    await qemuImgOk(['convert', '-O', 'raw', ...words, basename(path), 'view.raw'], { cwd })
    const view = join(cwd, 'view.raw')
    all.push(createHash('sha256').update(readFileSync(view)).digest('hex'))
    rmSync(view)
  }
  return all
}

async function isSound(path: string): Promise<void> {
  const { status, stdout } = await qemuImg(['check', basename(path)], { cwd: dirname(path) })
  expect([status, stdout]).toEqual([0, expect.stringContaining('No errors were found')])
}

/** Sizes and chains are not what compacting is about. */
const LEFT_OUT = /^(size-|chain-|.*-2m)/

describeWithQemu('compact', () => {
  const images = imageManifest().whole.filter(
    ({ name, check, openWritable, convert }) =>
      check?.status === 0 &&
      openWritable.status === 0 &&
      convert.status === 0 &&
      !LEFT_OUT.test(name),
  )
  test.each(images.map((image) => [image.name, image] as const))(
    'the image %s is sound and reads the same afterwards',
    async (_, image) => {
      const path = unpackImage(image, tempFolder())
      const ids = image.snapshots.slice(0, 4).map(({ id }) => id)
      const before = await viewsOf(path, ids)
      expect(await compactWith(path)).toBeGreaterThanOrEqual(0)
      await isSound(path)
      expect(await viewsOf(path, ids)).toEqual(before)
    },
  )

  test.each([
    ['512 B clusters', { clusterSize: 512 }],
    ['4 KiB clusters, 64-bit refcounts', { clusterSize: 4096, refcountBits: 64 }],
    ['64 KiB clusters', {}],
    ['64 KiB clusters, zstd', { compressionType: 'zstd' as const }],
    ['extended L2', { clusterSize: 16384, extendedL2: true }],
    ['version 2', { clusterSize: 4096, version: 2 as const }],
  ])('a worn image of %s is shorter, sound and the same in every view', async (_, options) => {
    const path = join(tempFolder(), 'worn.qcow2')
    const file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    const image = await wornImage(file, options, { seed: 5, compresses: true, snapshots: true })
    const ids = image.snapshots.map(({ id }) => id)
    await image.close()
    const before = await viewsOf(path, ids)
    expect(await compactWith(path, '--zero')).toBeGreaterThan(0)
    await isSound(path)
    expect(await viewsOf(path, ids)).toEqual(before)
    await qemuIoOk(path, ['write -P 5 0 50k', 'read -P 5 0 50k'], { format: 'qcow2' })
    await isSound(path)
  })

  test('data under LUKS, which is bound to its place, stays there', async () => {
    const path = await encrypted('luks')
    expect(await compactWith(path)).toBeGreaterThanOrEqual(0)
    await readsBack(path)
  })

  test('data under the old AES encryption moves and stays readable', async () => {
    const path = await encrypted('aes')
    expect(await compactWith(path)).toBeGreaterThan(100 * 4096)
    await readsBack(path)
  })

  test('bitmaps keep what they say', async () => {
    const path = join(tempFolder(), 'a.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '16M'])
    await qemuIoOk(path, ['write 0 4M'])
    await qemuImgOk(['bitmap', '--add', '-g', '512', path, 'fine'])
    await qemuImgOk(['bitmap', '--add', '-g', '64k', path, 'coarse'])
    const words = ['write 1M 64k', 'write 9M 1k', 'discard 0 3M'].flatMap((one) => ['-c', one])
    expect(spawnSync('qemu-io', ['-d', 'unmap', ...words, path]).status).toBe(0)
    const before = [await bitsOf(path, 'fine'), await bitsOf(path, 'coarse')]
    expect(await compactWith(path)).toBeGreaterThan(2 << 20)
    expect([await bitsOf(path, 'fine'), await bitsOf(path, 'coarse')]).toEqual(before)
    await isSound(path)
  })
})

const SECRET = ['--object', 'secret,id=key,data=open-sesame']

function keyed(path: string): string[] {
  return ['--image-opts', `driver=qcow2,encrypt.key-secret=key,file.filename=${path}`]
}

/** An encrypted image with data at its end and free clusters before that. */
async function encrypted(format: 'luks' | 'aes'): Promise<string> {
  const path = join(tempFolder(), 'a.qcow2')
  const hurry = format === 'luks' ? ',encrypt.iter-time=10' : ''
  const options = `encrypt.format=${format},encrypt.key-secret=key,cluster_size=4k${hurry}`
  await qemuImgOk(['create', '-q', '-f', 'qcow2', ...SECRET, '-o', options, path, '8M'])
  const commands = ['write -P 1 0 4M', 'write -P 2 4M 256k', 'discard 0 2M']
  const words = commands.flatMap((command) => ['-c', command])
  const done = spawnSync('qemu-io', ['-d', 'unmap', ...SECRET, ...words, ...keyed(path)])
  expect(done.status).toBe(0)
  return path
}

async function readsBack(path: string): Promise<void> {
  const reads = ['read -P 2 4M 256k', 'read -P 1 2M 2M', 'read -P 0 0 2M']
  const words = reads.flatMap((command) => ['-c', command])
  const done = spawnSync('qemu-io', [...SECRET, ...words, ...keyed(path)])
  expect(`${done.stdout}${done.stderr}`).not.toMatch(/failed|mismatch|error/i)
  const { status, stdout } = await qemuImg(['check', ...SECRET, ...keyed(path)])
  expect([status, stdout]).toEqual([0, expect.stringContaining('No errors were found')])
}

/** The bits of a bitmap, by way of the real tool, which merges them into an empty image. */
async function bitsOf(path: string, name: string): Promise<Buffer> {
  const file = await FileDevice.open(nodeFiles, path)
  await using image = await Qcow2Image.open(file)
  const record = (await image.bitmaps()).find((one) => one.name === name)
  expect(record?.inUse).toBe(false)
  const granularity = String(2 ** (record?.granularityBits ?? 0))
  const merged = `${path}.${name}`
  await qemuImgOk(['create', '-q', '-f', 'qcow2', merged, '16M'])
  await qemuImgOk(['bitmap', '--add', '-g', granularity, merged, name])
  await qemuImgOk(['bitmap', '--merge', name, '-b', path, '-F', 'qcow2', merged, name])
  const bytes = readFileSync(merged)
  rmSync(merged)
  return bytes
}
