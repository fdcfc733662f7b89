/**
 * What a run did to its files, as a list of entries in the order in which they were issued. A flush has two entries: only
 * what had completed before the first is covered, and only from the second on. Names are changed by entries of their own.
 */

import type { Sector } from './sector.ts'

/** New contents of some sectors of a file; `changes` leaves out those that had this content anyway. */
export interface WriteEntry {
  readonly op: 'write' | 'zero'
  readonly file: number
  readonly offset: number
  readonly length: number
  readonly changes: readonly { readonly index: number; readonly sector: Sector }[]
  /** The length of the file afterwards, where it changed. */
  readonly size?: number
  /** The position of the `done` entry of a write that others could overtake; without one it was done at once. */
  done?: number
}

/** One change of names, atomic: `removed` go, `set` lead to files. */
export interface NameEntry {
  readonly op: 'name'
  readonly kind: 'create' | 'link' | 'rename' | 'unlink' | 'make-folder' | 'remove-folder'
  readonly set: readonly { readonly path: string; readonly file: number }[]
  readonly removed: readonly string[]
  /** The folders that must be synced for it to last. */
  readonly folders: readonly string[]
}

/** One entry of a trace. */
export type TraceEntry =
  | WriteEntry
  | NameEntry
  | { readonly op: 'truncate'; readonly file: number; readonly size: number }
  | { readonly op: 'done' }
  | { readonly op: 'flush'; readonly file: number }
  | {
      readonly op: 'flushed'
      readonly file: number
      /** Position of the `flush` entry that ends here. */
      readonly start: number
      readonly failed: boolean
    }
  | { readonly op: 'sync-folder'; readonly path: string }
  | { readonly op: 'folder-synced'; readonly path: string; readonly start: number }
  /** From here on the step `step` is under way; the first is 1. */
  | { readonly op: 'begin'; readonly step: number }
  /** From here on all steps up to `step` must last. */
  | { readonly op: 'lasting'; readonly step: number }
  /** Changes nothing: a place to look at. */
  | { readonly op: 'mark'; readonly name: string }

/** What lies in a file: whole sectors, the last one padded with zeroes. */
export interface FileContent {
  readonly id: number
  readonly sectors: readonly Sector[]
  readonly length: number
}

/** A folder among the names of a file system. */
export const FOLDER = -1

/** The files and names at one moment; a name leads to a file id or to `FOLDER`. */
export interface Snapshot {
  readonly files: ReadonlyMap<number, FileContent>
  readonly names: ReadonlyMap<string, number>
}

/** Where a run began, what it did, and the same place at its end. */
export interface Trace {
  readonly start: Snapshot
  readonly entries: readonly TraceEntry[]
}

/** A trace entry in a few words, for reports. */
export function describeEntry(entry: TraceEntry): string {
  switch (entry.op) {
    case 'write':
    case 'zero':
      return `${entry.op} of ${entry.length} bytes at 0x${entry.offset.toString(16)} in file ${entry.file}`
    case 'truncate':
      return `truncate of file ${entry.file} to ${entry.size} bytes`
    case 'name': {
      const set = entry.set.map(({ path, file }) => `${path}=${file}`)
      return [entry.kind, ...set, ...entry.removed.map((path) => `-${path}`)].join(' ')
    }
    case 'flush':
    case 'flushed':
      return `${entry.op} of file ${entry.file}${'failed' in entry && entry.failed ? ' (failed)' : ''}`
    case 'sync-folder':
    case 'folder-synced':
      return `${entry.op} ${entry.path}`
    case 'begin':
    case 'lasting':
      return `${entry.op} step ${entry.step}`
    case 'mark':
      return `mark ${entry.name}`
    case 'done':
      return 'write done'
  }
}
