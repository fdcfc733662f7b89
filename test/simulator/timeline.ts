/**
 * Goes through a trace and knows at each position what is durable and what is pending: issued, and not covered by a flush of
 * its file that completed. What a failed flush should have covered stays pending for ever.
 */

import { applyNames } from './recording-files.ts'
import { SECTOR_SIZE, type Sector, ZERO } from './sector.ts'
import type { NameEntry, Trace, TraceEntry, WriteEntry } from './trace.ts'

/** How directories behave: `ordered` keeps a prefix of the changes of names, `weak` any subset. */
export type NameModel = 'ordered' | 'weak'

/** New contents that may be there or not, sector by sector. */
export interface PendingWrite {
  readonly kind: 'write'
  readonly position: number
  readonly file: number
  changes: { readonly index: number; readonly sector: Sector }[]
  readonly entry: WriteEntry
  doomed: boolean
}

/** A change of names that may have happened or not. */
export interface PendingName {
  readonly kind: 'name'
  readonly position: number
  readonly entry: NameEntry
}

/** What may be there or not. */
export type Pending = PendingWrite | PendingName

/** A length that a file may have. */
export interface PendingLength {
  readonly position: number
  readonly size: number
  readonly truncates: boolean
  doomed: boolean
}

/** A file as far as it is durable, with the lengths that it may have besides. */
export interface TimelineFile {
  readonly id: number
  readonly sectors: Sector[]
  length: number
  lengths: PendingLength[]
}

/** A walk through a trace. */
export class Timeline {
  readonly files = new Map<number, TimelineFile>()
  readonly names: Map<string, number>
  pending: Pending[] = []
  /** The next entry to be taken. */
  position = 0
  /** The step that is under way or done; 0 before the first. */
  step = 0
  /** Steps up to this one must last. */
  lasting = 0
  readonly #trace: Trace
  readonly #model: NameModel

  constructor(trace: Trace, model: NameModel) {
    this.#trace = trace
    this.#model = model
    for (const { id, sectors, length } of trace.start.files.values()) {
      this.files.set(id, { id, sectors: [...sectors], length, lengths: [] })
    }
    this.names = new Map(trace.start.names)
  }

  /** Takes the next entry and returns it; undefined at the end. */
  next(): TraceEntry | undefined {
    const position = this.position++
    const entry = this.#trace.entries[position]
    if (entry !== undefined) this.#take(entry, position)
    return entry
  }

  #take(entry: TraceEntry, position: number): void {
    switch (entry.op) {
      case 'write':
      case 'zero':
        this.#write(entry, position)
        return
      case 'truncate':
        this.#file(entry.file).lengths.push(lengthAt(position, entry.size, true))
        return
      case 'name':
        this.pending.push({ kind: 'name', position, entry })
        for (const { file } of entry.set) if (file > 0) this.#file(file)
        return
      case 'flushed':
        if (entry.failed) this.#doom(entry.file, entry.start)
        else this.#settle(entry.file, entry.start)
        return
      case 'folder-synced':
        this.#settleNames(entry.path, entry.start)
        return
      case 'begin':
        this.step = entry.step
        return
      case 'lasting':
        this.lasting = entry.step
        return
      default:
    }
  }

  #file(id: number): TimelineFile {
    let file = this.files.get(id)
    if (file === undefined) {
      file = { id, sectors: [], length: 0, lengths: [] }
      this.files.set(id, file)
    }
    return file
  }

  #write(entry: WriteEntry, position: number): void {
    const file = this.#file(entry.file)
    const touched = new Set<number>()
    for (const one of this.pending) {
      if (one.kind === 'write' && one.file === entry.file)
        for (const { index } of one.changes) touched.add(index)
    }
    const changes = entry.changes.filter(
      ({ index, sector }) => touched.has(index) || !isSame(file.sectors[index] ?? ZERO, sector),
    )
    if (changes.length > 0) {
      this.pending.push({
        kind: 'write',
        position,
        file: entry.file,
        changes,
        entry,
        doomed: false,
      })
    }
    if (entry.size !== undefined) file.lengths.push(lengthAt(position, entry.size, false))
  }

  #doom(file: number, start: number): void {
    for (const one of this.pending) {
      if (one.kind === 'write' && one.file === file && one.position < start) one.doomed = true
    }
    for (const one of this.#file(file).lengths) if (one.position < start) one.doomed = true
  }

  /** What had completed when the flush began is durable. */
  #settle(id: number, start: number): void {
    const file = this.#file(id)
    for (const length of file.lengths) {
      if (length.position < start && !length.doomed) settleLength(file, length)
    }
    file.lengths = file.lengths.filter((length) => length.position >= start || length.doomed)
    const left: Pending[] = []
    for (const one of this.pending) {
      if (one.kind === 'name' || one.file !== id || !isCovered(one, start)) {
        left.push(one)
        continue
      }
      for (const { index, sector } of one.changes) {
        file.sectors[index] = sector
        // What was lost before is overwritten now.
        for (const older of left) forget(older, id, index)
      }
    }
    this.pending = left.filter((one) => one.kind === 'name' || one.changes.length > 0)
    if (this.#model === 'ordered') this.#settleNamesOf(id, start)
  }

  /** A journal that takes in a file takes in all changes of names up to the last one of that file. */
  #settleNamesOf(file: number, start: number): void {
    const concerned = this.pending.findLast(
      (one) =>
        one.kind === 'name' &&
        one.position < start &&
        one.entry.set.some((set) => set.file === file),
    )
    if (concerned !== undefined) this.#applyNames((one) => one.position <= concerned.position)
  }

  #settleNames(folder: string, start: number): void {
    this.#applyNames(
      (one) =>
        one.position < start &&
        (this.#model === 'ordered' || one.entry.folders.every((path) => path === folder)),
    )
    if (this.#model === 'ordered') return
    // Of a rename between folders the new name is what must last.
    this.#applyNames(
      (one) =>
        one.position < start &&
        one.entry.set.some(({ path }) => path.slice(0, path.lastIndexOf('/')) === trimmed(folder)),
    )
  }

  #applyNames(isDurable: (one: PendingName) => boolean): void {
    this.pending = this.pending.filter((one) => {
      if (one.kind !== 'name' || !isDurable(one)) return true
      applyNames(this.names, one.entry)
      return false
    })
  }
}

function trimmed(folder: string): string {
  return folder === '/' ? '' : folder
}

function lengthAt(position: number, size: number, truncates: boolean): PendingLength {
  return { position, size, truncates, doomed: false }
}

function isSame(one: Sector, other: Sector): boolean {
  return one.a === other.a && one.b === other.b
}

function isCovered(one: PendingWrite, start: number): boolean {
  const done = one.entry.done ?? one.position
  return done < start && one.position < start && !one.doomed
}

function forget(one: Pending, file: number, index: number): void {
  if (one.kind === 'name' || one.file !== file) return
  if (one.changes.some((change) => change.index === index)) {
    one.changes = one.changes.filter((change) => change.index !== index)
  }
}

function settleLength(file: TimelineFile, { size, truncates }: PendingLength): void {
  file.length = size
  if (!truncates) return
  const end = Math.ceil(size / SECTOR_SIZE)
  for (let index = end; index < file.sectors.length; index++) file.sectors[index] = ZERO
}
