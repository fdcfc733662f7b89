/** Makes the disks that the benches work on, always the same ones, and says what they hold. Not timed. */

import { closeSync, ftruncateSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Setting } from './bench.ts'

const MIB = 1024 * 1024
const BLOCK = 4096

/** Numbers that look random and are the same in every run. */
function numbers(seed: number): () => number {
  let state = seed
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

/** One MiB, half of it random. */
function plausibleBytes(): Buffer {
  const next = numbers(7)
  const bytes = Buffer.alloc(MIB)
  for (let at = 0; at < MIB; at++) {
    bytes[at] = at % 16 < 8 ? Math.floor(next() * 256) : 97 + (at % 11)
  }
  return bytes
}

/**
 * Bytes as real disks hold them: the program of Node itself, which compresses to somewhat less than a half; made-up ones where it is
 * but a few KiB that load a library.
 */
export function programBytes(): Buffer {
  const length = Math.min(64, Math.floor(statSync(process.execPath).size / MIB)) * MIB
  if (length === 0) return plausibleBytes()
  const file = openSync(process.execPath, 'r')
  const bytes = readAt(file, 0, length)
  closeSync(file)
  return bytes
}

/** What the first bytes of the 4 KiB block at `offset` say. */
export function stampAt(offset: number): number {
  return offset / BLOCK + 1
}

/** Throws unless the block in `bytes` is the one of that offset. */
export function checkStamp(bytes: Buffer, at: number, offset: number): void {
  if (bytes.readUInt32BE(at) !== stampAt(offset)) {
    throw new Error(`read at ${offset} returned other bytes than were written there`)
  }
}

/** What a disk is made of. */
export type Content = 'data' | 'mixed' | 'sparse'

/** The shares of data and of written zeroes; the rest is holes. All in runs of up to 4 MiB. */
export const SHARES: Readonly<Record<Content, { readonly data: number; readonly zeroes: number }>> =
  {
    data: { data: 1, zeroes: 0 },
    mixed: { data: 0.5, zeroes: 0.25 },
    sparse: { data: 0.05, zeroes: 0 },
  }

/** A content in words. */
export const CONTENT_TEXTS: Readonly<Record<Content, string>> = {
  data: 'all data',
  mixed: 'half data, a quarter zeroes, a quarter holes',
  sparse: 'a twentieth data, the rest holes',
}

/** Waits until the inputs are on the disk: else they are written while something is measured, and cannot leave the page cache. */
export function settle({ tools, folder }: Setting): void {
  tools.tool(`sync -f ${folder}`)
}

/**
 * Takes as much memory as a run wants for what it writes, and gives it back. A host of virtual machines takes free memory away, and
 * getting that again may cost more than the copy that is measured; so both sides find some that is there.
 */
export function warmMemory({ folder }: Setting, length: number): void {
  const path = join(folder, 'warm')
  const file = openSync(path, 'w')
  const bytes = Buffer.alloc(MIB)
  for (let at = 0; at < length; at += MIB) writeSync(file, bytes, 0, MIB, at)
  closeSync(file)
  rmSync(path)
}

/** Writes a raw disk whose data is `template` again and again, whole MiB, a stamp in each block. */
export function writeRawDisk(
  path: string,
  size: number,
  content: Content,
  template = plausibleBytes(),
): void {
  const shares = SHARES[content]
  const next = numbers(11)
  const zeroes = Buffer.alloc(MIB)
  const file = openSync(path, 'w')
  ftruncateSync(file, size)
  let written = 0
  for (let at = 0; at < size; ) {
    const kind = content === 'data' ? 0 : next()
    const wanted = content === 'data' ? MIB : Math.ceil(next() * 64) * 65536
    const end = Math.min(size, at + wanted)
    for (; at < end && kind < shares.data + shares.zeroes; at += MIB) {
      const isData = kind < shares.data
      const from = isData ? written++ % (template.length / MIB) : 0
      const source = isData ? template.subarray(from * MIB) : zeroes
      const bytes = source.subarray(0, Math.min(MIB, end - at))
      if (isData) {
        for (let block = 0; block < bytes.length; block += BLOCK) {
          bytes.writeUInt32BE(stampAt(at + block), block)
        }
      }
      writeSync(file, bytes, 0, bytes.length, at)
    }
    at = end
  }
  closeSync(file)
}

/** A qcow2 image of `size` bytes that are all mapped, its clusters in the order of the disk; it takes only its tables' space. */
export function makeMapped({ tools }: Setting, name: string, size: number): void {
  tools.qemuImg(`create -q -f qcow2 -o preallocation=metadata ${name} ${size}`)
}

/** A copy of a wholly mapped image in which neighbours on the disk are far apart in the file. */
export function makeScattered(setting: Setting, source: string, name: string): void {
  copySparse(setting, source, name)
  const file = openSync(join(setting.folder, name), 'r+')
  const header = readAt(file, 0, 72)
  const l1 = readAt(file, Number(header.readBigUInt64BE(40)), header.readUInt32BE(36) * 8)
  const clusterSize = 2 ** header.readUInt32BE(20)
  const tables: { readonly offset: number; readonly words: BigUint64Array }[] = []
  for (let at = 0; at < l1.length; at += 8) {
    const offset = Number(l1.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)
    const bytes = new Uint8Array(readAt(file, offset, clusterSize))
    tables.push({ offset, words: new BigUint64Array(bytes.buffer) })
  }
  // Entries only change places, so every cluster is still referred to once.
  const entries = tables.flatMap(({ words }) => [...words]).filter((word) => word !== 0n)
  let index = 0
  for (const { words } of tables) {
    for (let at = 0; at < words.length && words[at] !== 0n; at++) {
      words[at] = entries[(index++ * 7919) % entries.length]!
    }
  }
  if (entries.length % 7919 === 0) throw new Error('the step meets only some of the clusters')
  for (const { offset, words } of tables) {
    writeSync(file, new Uint8Array(words.buffer), 0, clusterSize, offset)
  }
  closeSync(file)
}

function readAt(file: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  readSync(file, bytes, 0, length, offset)
  return bytes
}

/** The names, top first, of a chain of images in which every cluster lies in another layer than its neighbours. */
export function makeChain(setting: Setting, size: number, layerCount: number): string[] {
  const { folder, tools } = setting
  const template = plausibleBytes()
  const names: string[] = []
  for (let layer = 0; layer < layerCount; layer++) {
    const raw = join(folder, 'layer.raw')
    const file = openSync(raw, 'w')
    ftruncateSync(file, size)
    for (let at = layer * 65536; at < size; at += layerCount * 65536) {
      const bytes = template.subarray(0, 65536)
      for (let block = 0; block < bytes.length; block += BLOCK) {
        bytes.writeUInt32BE(stampAt(at + block), block)
      }
      writeSync(file, bytes, 0, bytes.length, at)
    }
    closeSync(file)
    const name = `layer-${layer}.qcow2`
    tools.qemuImg(`convert -f raw -O qcow2 layer.raw ${name}`)
    if (names[0] !== undefined) tools.qemuImg(`rebase -u -F qcow2 -b ${names[0]} ${name}`)
    names.unshift(name)
  }
  return names
}

/** Copies a file with its holes; the copy shares nothing with it, and is on the disk: whoever flushes it flushes his own work only. */
export function copySparse({ tools }: Setting, source: string, target: string): void {
  tools.tool(`cp --sparse=auto --reflink=never ${source} ${target}`)
  tools.tool(`sync ${target}`)
}
