/**
 * A signal that comes early during a long verb: the verb ends after the step that it is in, not when all is done, with the status of
 * the signal; every view is as before, nothing is left beside it, and the line works afterwards. A second signal does not wait.
 */

import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { CheckpointCatalogue, createCheckpoint } from '../../src/checkpoint/index.ts'
import { type CreateOptions, createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { tempFolder } from '../support/temp.ts'
import { viewDigests } from '../support/worn-image.ts'
import { DeadlyCommand } from './command.ts'

const KIB = 1024
const MIB = KIB * KIB
const SIZE = 24 * MIB

let command: DeadlyCommand
let scene: string

async function make(
  name: string,
  options: Partial<CreateOptions>,
  fill: (write: (offset: number, length: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  const path = join(scene, name)
  {
    await using file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    await createQcow2(file, { size: SIZE, clusterSize: 4 * KIB, ...options })
  }
  await using chain = await openChain(path, { writable: true })
  const bytes = new Uint8Array(MIB).map((_, at) => 1 + (at % 251))
  await fill((offset, length) => chain.device.write(offset, bytes.subarray(0, length)))
}

/** Every other cluster of 512 bytes is written, so that tables are long and files are in shreds. */
async function scattered(
  write: (offset: number, length: number) => Promise<void>,
  end = SIZE,
): Promise<void> {
  for (let at = 0; at < end; at += 16 * KIB) await write(at, 8 * KIB)
}

async function checkpoints(name: string): Promise<void> {
  const path = join(scene, 'vm', 'disk.qcow2')
  await nodeFiles.makeFolder(join(scene, 'vm'), { parents: true })
  await make('vm/disk.qcow2', {}, (write) => scattered(write))
  for (const checkpoint of ['a', name]) {
    const catalogue = await CheckpointCatalogue.find({ images: [path] })
    await createCheckpoint(catalogue, { name: checkpoint, kind: 'external' })
    await using chain = await openChain(path, { writable: true })
    const bytes = new Uint8Array(8 * KIB).fill(9)
    for (let at = 0; at < SIZE; at += 12 * KIB) await chain.device.write(at, bytes)
  }
}

beforeAll(async () => {
  command = await DeadlyCommand.create()
  scene = mkdtempSync(join(tmpdir(), 'cowpoint-signals-'))
  const on = (name: string) => ({ backing: { name, format: 'qcow2' } })
  await make('base.qcow2', {}, async (write) => {
    for (let at = 0; at < SIZE; at += MIB) await write(at, MIB)
  })
  await make('other.qcow2', {}, (write) => write(0, MIB))
  await make('top.qcow2', on('base.qcow2'), (write) => scattered(write))
  await make('shreds.qcow2', { clusterSize: 512 }, (write) => scattered(write))
  const broken = readFileSync(join(scene, 'shreds.qcow2'))
  // The first refcount block counts nothing any more.
  const block = Number(broken.readBigUInt64BE(Number(broken.readBigUInt64BE(48))))
  writeFileSync(join(scene, 'broken.qcow2'), broken.fill(0, block, block + 512))
  await make('holes.qcow2', {}, (write) => scattered(write))
  await using chain = await openChain(join(scene, 'holes.qcow2'), { writable: true })
  for (let at = 0; at < SIZE / 2; at += 32 * KIB) {
    await chain.device.writeZeroes(at, 8 * KIB, { mayDiscard: true })
  }
  await checkpoints('b')
}, 120_000)

afterAll(() => {
  command?.[Symbol.dispose]()
  if (scene !== undefined) rmSync(scene, { recursive: true, force: true })
})

async function digests(folder: string, isUsed: (name: string) => boolean): Promise<string[]> {
  const all: string[] = []
  for (const name of ['base', 'top', 'shreds', 'broken', 'holes', 'vm/disk'].filter(isUsed)) {
    await using chain = await openChain(join(folder, `${name}.qcow2`))
    const { image } = chain.active
    all.push(name, ...(image === undefined ? [] : await viewDigests(image)))
  }
  return all
}

/** The line, the images that it is about, and the storage operation at which the signal comes. */
const LINES: readonly (readonly [line: string, images: readonly string[], turn: number])[] = [
  ['convert -O qcow2 top.qcow2 new.qcow2', ['base', 'top'], 6],
  ['compact -q --zero holes.qcow2', ['holes'], 8],
  ['commit -q top.qcow2', ['base', 'top'], 8],
  ['rebase -b other.qcow2 -F qcow2 top.qcow2', ['base', 'top', 'other'], 4],
  ['stream -q top.qcow2', ['base', 'top'], 4],
  ['resize --preallocation=full shreds.qcow2 +24M', ['shreds'], 6],
  ['check -q -r all --force broken.qcow2', ['broken'], 1],
  ['snapshot -c new shreds.qcow2', ['shreds'], 2],
  ['checkpoint delete -q a vm/disk.qcow2', ['vm', 'vm/disk'], 60],
  ['checkpoint prune -q --keep-last 0 vm/disk.qcow2', ['vm', 'vm/disk'], 60],
  ['checkpoint convert -q --to internal a vm/disk.qcow2', ['vm', 'vm/disk'], 60],
]

test.each(LINES)(
  '%s ends soon after a signal',
  async (line, images, turn) => {
    const words = line.split(' ')
    const isUsed = (name: string) => images.includes(name)
    const copy = () => {
      const folder = tempFolder()
      for (const name of images) {
        const file = name === 'vm' ? name : `${name}.qcow2`
        if (!name.includes('/')) cpSync(join(scene, file), join(folder, file), { recursive: true })
      }
      return folder
    }
    const whole = await command.run(copy(), words)
    expect(whole.status, whole.stderr).toBe(0)
    const folder = copy()
    const before = await digests(folder, isUsed)
    const names = readdirSync(folder)
    const end = await command.run(folder, words, { turn, when: 'before', signal: 'SIGTERM' })
    expect(end.stderr).toMatch(/^cowpoint: (?:.*: )?interrupted by SIGTERM\n$/)
    expect(end.status).toBe(143)
    expect(end.count).toBeLessThan(whole.count as number)
    expect(await digests(folder, isUsed)).toEqual(before)
    expect(readdirSync(folder)).toEqual(names)
    expect(await command.run(folder, words)).toMatchObject({ status: 0 })
  },
  60_000,
)

test('the second signal ends it at once', async () => {
  const folder = tempFolder()
  const words = ['convert', '-f', 'raw', '-O', 'qcow2', '-', 'disk.qcow2']
  const child = spawn(process.execPath, [command.main, ...words], {
    ...{ cwd: folder, stdio: ['pipe', 'ignore', 'ignore'] },
  })
  const ended = new Promise((done) => child.on('close', (status) => done(status)))
  child.stdin?.on('error', () => {})
  child.stdin?.write(Buffer.alloc(100_000, 1))
  while (readdirSync(folder).length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
  child.kill('SIGINT')
  child.kill('SIGTERM')
  expect([130, 143]).toContain(await ended)
})
