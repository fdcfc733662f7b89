/** The disk of the demonstration: made from real files, with a note and scratch data that can be found and changed on it. */

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BlockDevice, openChain } from '../src/index.ts'

const NOTE_LENGTH = 40
const SCRATCH = 'scratch data that nobody will miss. '
const SCRATCH_SIZE = 4 * 1024 * 1024
const DISK_SIZE = 64 * 1024 * 1024
const CHUNK_SIZE = 1024 * 1024

/** A note as it lies on the disk: always as long, so that it can be written over in its place. */
function noteBytes(text: string): Buffer {
  return Buffer.from(`NOTE: ${text.padEnd(NOTE_LENGTH)}\n`)
}

/** Runs a tool that may not be there; undefined where it is not. */
export function tool(command: string, args: readonly string[]): string | undefined {
  const path = `${process.env.PATH ?? ''}:/sbin:/usr/sbin`
  const run = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, PATH: path } })
  if (run.error !== undefined) return undefined
  if (run.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${run.stderr || run.stdout}`)
  return run.stdout.trim()
}

/**
 * A file system with this project's own files, a note and a scratch file; where mke2fs is missing, a bare disk with the two. Says in
 * words what it is.
 */
export function makeDisk(folder: string, raw: string, note: string): string {
  const files = join(folder, 'files')
  mkdirSync(files)
  const root = join(import.meta.dirname, '..')
  for (const name of ['src', 'docs', 'README.md']) {
    cpSync(join(root, name), join(files, name), { recursive: true })
  }
  const scratch = Buffer.alloc(SCRATCH_SIZE, SCRATCH)
  writeFileSync(join(files, 'note.txt'), noteBytes(note))
  writeFileSync(join(files, 'scratch.bin'), scratch)
  const made = tool('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-d', files, raw, '64M'])
  if (made !== undefined) {
    return 'an ext4 file system of 64 MiB, made by mke2fs from the files of this project'
  }
  const bytes = Buffer.alloc(DISK_SIZE)
  noteBytes(note).copy(bytes, 1024 * 1024)
  scratch.copy(bytes, 8 * 1024 * 1024)
  writeFileSync(raw, bytes)
  return 'a bare disk of 64 MiB with a note and some scratch data (mke2fs is not installed here)'
}

/** Where a text lies on a disk. */
async function find(device: BlockDevice, text: string): Promise<number> {
  const wanted = Buffer.from(text)
  const chunk = Buffer.alloc(CHUNK_SIZE + wanted.length)
  for (let offset = 0; offset < device.size; offset += CHUNK_SIZE) {
    const part = chunk.subarray(0, Math.min(chunk.length, device.size - offset))
    await device.read(offset, part)
    const at = part.indexOf(wanted)
    if (at !== -1) return offset + at
  }
  throw new Error(`"${text}" is not on the disk`)
}

/** The note as a disk has it. */
export async function readNote(device: BlockDevice): Promise<string> {
  const bytes = Buffer.alloc(noteBytes('').length)
  await device.read(await find(device, 'NOTE: '), bytes)
  return bytes.toString().slice('NOTE: '.length).trim()
}

/** What a guest might do: writes another note, and fills the scratch file with `fill`, or discards it. */
export async function useDisk(path: string, note: string, fill: string | undefined): Promise<void> {
  await using chain = await openChain(path, { writable: true, format: 'qcow2' })
  const { device } = chain
  // Looked for on the disk as it was: other scratch data has another text.
  const at = await find(device, 'NOTE: ')
  await device.write(at, noteBytes(note))
  const scratchAt = await scratchOf(device)
  if (fill === undefined) await device.discard(scratchAt, SCRATCH_SIZE)
  else await device.write(scratchAt, Buffer.alloc(SCRATCH_SIZE, fill))
  await device.flush()
}

let knownScratch: number | undefined

/** The place of the scratch file, which does not move. */
async function scratchOf(device: BlockDevice): Promise<number> {
  knownScratch ??= await find(device, SCRATCH.repeat(3))
  return knownScratch
}
