/**
 * The main job on a real disk, step by step in plain words: a disk is converted to qcow2, remembered,
 * changed, brought back and cleaned up, and after each step the image is checked. `--keep` leaves the files.
 */

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/base/units.ts'
import {
  type BlockDevice,
  checkImage,
  contentDigest,
  convertToNew,
  FileDevice,
  nodeFiles,
  openChain,
  type Qcow2Image,
} from '../src/index.ts'

const folder = mkdtempSync(join(tmpdir(), 'cowpoint-demo-'))
const raw = join(folder, 'disk.raw')
const disk = join(folder, 'disk.qcow2')
const NOTE = 'Meeting at ten. Bring the old disk.\n'
const CHANGED = 'Meeting is OFF!! Throw the disk away'.slice(0, NOTE.length - 1).concat('\n')
const SCRATCH_SIZE = 4 * 1024 * 1024
let stepCount = 0

function say(text: string): void {
  console.log(text)
}

function step(text: string): void {
  say(`\n${++stepCount}. ${text}`)
}

/** Runs a tool that may not be there; undefined where it is not. */
function tool(command: string, args: readonly string[]): string | undefined {
  const path = `${process.env.PATH ?? ''}:/sbin:/usr/sbin`
  const run = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, PATH: path } })
  if (run.error !== undefined) return undefined
  if (run.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${run.stderr || run.stdout}`)
  return run.stdout.trim()
}

/** A file system with this project's own files, a note and a scratch file; where mke2fs is missing, a bare disk with the latter. */
function makeDisk(): string {
  const files = join(folder, 'files')
  mkdirSync(files)
  const root = join(import.meta.dirname, '..')
  for (const name of ['src', 'docs', 'README.md']) {
    cpSync(join(root, name), join(files, name), { recursive: true })
  }
  writeFileSync(join(files, 'note.txt'), NOTE)
  const scratch = Buffer.alloc(SCRATCH_SIZE, 'scratch data that nobody will miss. ')
  writeFileSync(join(files, 'scratch.bin'), scratch)
  const made = tool('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-d', files, raw, '64M'])
  if (made !== undefined)
    return 'an ext4 file system of 64 MiB, made by mke2fs from the files of this project'
  const bytes = Buffer.alloc(64 * 1024 * 1024)
  bytes.write(NOTE, 1024 * 1024)
  scratch.copy(bytes, 8 * 1024 * 1024)
  writeFileSync(raw, bytes)
  return 'a bare disk of 64 MiB with a note and some scratch data (mke2fs is not installed here)'
}

/** Where a text lies on a disk. */
async function find(device: BlockDevice, text: string): Promise<number> {
  const wanted = Buffer.from(text)
  const chunk = Buffer.alloc(1024 * 1024 + wanted.length)
  for (let offset = 0; offset < device.size; offset += 1024 * 1024) {
    const part = chunk.subarray(0, Math.min(chunk.length, device.size - offset))
    await device.read(offset, part)
    const at = part.indexOf(wanted)
    if (at !== -1) return offset + at
  }
  throw new Error(`"${text.trim()}" is not on the disk`)
}

async function noteOn(device: BlockDevice, offset: number): Promise<string> {
  const bytes = Buffer.alloc(NOTE.length)
  await device.read(offset, bytes)
  return bytes.toString().trim()
}

/** Our own check, and qemu-img's where it is there. */
async function check(): Promise<void> {
  await using device = await FileDevice.open(nodeFiles, disk)
  const report = await checkImage(device)
  if (report.corruptions + report.leaks + report.checkErrors > 0) {
    throw new Error(`check found ${JSON.stringify(report.findings.slice(0, 3))}`)
  }
  const qemu = tool('qemu-img', ['check', '-q', disk])
  const { size, blocks } = statSync(disk)
  say(
    `   check: no errors, no leaks${qemu === undefined ? '' : ' (qemu-img agrees)'}; the file is ` +
      `${formatSize(size)} long and takes ${formatSize(blocks * 512)}`,
  )
}

/** Opens the image for one step. */
async function withImage<T>(action: (image: Qcow2Image) => Promise<T>): Promise<T> {
  await using chain = await openChain(disk, { writable: true, format: 'qcow2' })
  return await action(chain.active.image as Qcow2Image)
}

async function digestOf(path: string): Promise<string> {
  await using chain = await openChain(path)
  return await contentDigest(chain.device)
}

async function main(): Promise<void> {
  step(`A real disk: ${makeDisk()}.`)
  const original = await digestOf(raw)
  say(`   its content has the SHA-256 ${original.slice(0, 16)}…`)

  step('Convert it to qcow2 (cowpoint convert -O qcow2 disk.raw disk.qcow2).')
  {
    await using source = await openChain(raw)
    await convertToNew(source.device, { location: disk, layout: { format: 'qcow2', options: {} } })
  }
  say(`   same content: ${(await digestOf(disk)) === original ? 'yes' : 'NO'}`)
  await check()

  step('Take an internal snapshot (cowpoint snapshot -c fresh disk.qcow2).')
  await withImage((image) => image.createSnapshot({ name: 'fresh' }))
  await check()

  step('Change the disk through the engine: rewrite note.txt, discard scratch.bin.')
  const noteAt = await withImage(async (image) => {
    const at = await find(image, NOTE)
    await image.write(at, Buffer.from(CHANGED))
    const scratchAt = await find(image, 'scratch data that nobody will miss. ')
    await image.discard(scratchAt, SCRATCH_SIZE)
    const view = await image.openSnapshot(image.snapshots[0]!)
    say(`   note.txt on the disk now:     "${await noteOn(image, at)}"`)
    say(`   note.txt in the snapshot:     "${await noteOn(view, at)}"`)
    return at
  })
  await check()

  step('Restore the snapshot (cowpoint snapshot -a fresh disk.qcow2).')
  await withImage(async (image) => {
    await image.applySnapshot(image.snapshots[0]!)
    say(`   note.txt on the disk again:   "${await noteOn(image, noteAt)}"`)
  })
  say(`   same content as at the start: ${(await digestOf(disk)) === original ? 'yes' : 'NO'}`)
  await check()

  step('Delete the snapshot (cowpoint snapshot -d fresh disk.qcow2); what only it held is freed.')
  await withImage((image) => image.deleteSnapshot(image.snapshots[0]!))
  await check()

  step('Verify the result.')
  if ((await digestOf(disk)) !== original) throw new Error('the content differs from the original')
  say('   the content is what it was at the start, byte for byte')
  const compared = tool('qemu-img', ['compare', '-F', 'raw', disk, raw])
  say(
    compared === undefined
      ? '   (qemu-img is not installed here)'
      : `   qemu-img compare: ${compared}`,
  )
  say('\nAll of it held.')
}

try {
  await main()
} finally {
  if (process.argv.includes('--keep')) say(`The files are in ${folder}`)
  else rmSync(folder, { recursive: true, force: true })
}
