/** An open file of recording-files.ts: it changes sectors and notes which, so that a power cut can keep some and lose others. */

import type { FileStat, OpenFile } from '../../src/storage/index.ts'
import { type LiveFile, type RecordingFiles, readSectors } from './recording-files.ts'
import { SECTOR_SIZE, type Sector, sectorOf, ZERO } from './sector.ts'
import type { WriteEntry } from './trace.ts'

const ZEROES = new Uint8Array(64 * 1024)

/** An open file in memory. */
export class RecordedFile implements OpenFile {
  readonly path: string
  readonly writable: boolean
  readonly #files: RecordingFiles
  readonly #file: LiveFile

  constructor(files: RecordingFiles, file: LiveFile, path: string, writable: boolean) {
    this.#files = files
    this.#file = file
    this.path = path
    this.writable = writable
  }

  async stat(): Promise<FileStat> {
    return this.#files.statOf(this.#file)
  }

  readSync(target: Uint8Array, position: number): number {
    return readSectors(this.#file, target, position)
  }

  writeSync(source: Uint8Array, position: number): number {
    this.#note(this.#write('write', position, source))
    return source.length
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return this.readSync(target, position)
  }

  /** Others may overtake it: what they flush meanwhile does not cover it. */
  async write(source: Uint8Array, position: number): Promise<number> {
    const entry = this.#write('write', position, source)
    entry.done = Number.POSITIVE_INFINITY
    this.#note(entry)
    await this.#files.pause()
    entry.done = this.#files.note({ op: 'done' })
    return source.length
  }

  async truncate(size: number): Promise<void> {
    const file = this.#file
    if (size < file.length) {
      file.sectors.length = Math.min(file.sectors.length, Math.ceil(size / SECTOR_SIZE))
      this.#clearRest(size)
    }
    file.length = size
    this.#files.touch(file)
    this.#files.note({ op: 'truncate', file: file.id, size })
  }

  async sync(): Promise<void> {
    await this.#files.flush(this.#file)
  }

  punchHole(offset: number, length: number): boolean {
    const end = Math.min(offset + length, this.#file.length)
    if (end <= offset) return true
    this.#note(this.#write('zero', offset, zeroes(end - offset)))
    return true
  }

  zeroRange(offset: number, length: number): boolean {
    return this.punchHole(offset, length)
  }

  reserve(): boolean {
    return false
  }

  nextData(): undefined {
    return undefined
  }

  nextHole(): undefined {
    return undefined
  }

  async close(): Promise<void> {}

  #note(entry: WriteEntry): void {
    this.#files.note(entry)
  }

  #write(op: 'write' | 'zero', offset: number, source: Uint8Array): WriteEntry {
    const file = this.#file
    const end = offset + source.length
    const changes: { index: number; sector: Sector }[] = []
    const last = Math.ceil(end / SECTOR_SIZE)
    while (file.sectors.length < last) file.sectors.push(ZERO)
    for (let index = Math.floor(offset / SECTOR_SIZE); index < last; index++) {
      const sector = changedSector(file.sectors[index] as Sector, index, source, offset)
      // Kept even where it changes nothing: an earlier write to the sector may get lost.
      changes.push({ index, sector })
      file.sectors[index] = sector
    }
    this.#files.touch(file)
    const { length } = source
    if (end <= file.length) return { op, file: file.id, offset, length, changes }
    file.length = end
    return { op, file: file.id, offset, length, changes, size: end }
  }

  /** Zeroes behind the end of the file in its last sector. */
  #clearRest(size: number): void {
    const rest = size % SECTOR_SIZE
    const index = Math.floor(size / SECTOR_SIZE)
    const sector = this.#file.sectors[index]
    if (rest === 0 || sector === undefined) return
    this.#file.sectors[index] = sectorOf(cutSector(sector, rest))
  }
}

/** The bytes of a sector of which only the first `length` remain. */
export function cutSector(sector: Sector, length: number): Uint8Array {
  const bytes = new Uint8Array(SECTOR_SIZE)
  bytes.set(sector.bytes.subarray(0, length))
  return bytes
}

function changedSector(old: Sector, index: number, source: Uint8Array, offset: number): Sector {
  const at = index * SECTOR_SIZE
  const from = Math.max(at, offset)
  const to = Math.min(at + SECTOR_SIZE, offset + source.length)
  const bytes = to - from === SECTOR_SIZE ? new Uint8Array(SECTOR_SIZE) : old.bytes.slice()
  bytes.set(source.subarray(from - offset, to - offset), from - at)
  return sectorOf(bytes)
}

function zeroes(length: number): Uint8Array {
  return length <= ZEROES.length ? ZEROES.subarray(0, length) : new Uint8Array(length)
}
