/**
 * The files of a run in the state in which a power cut left them. One disk is brought from state to state; a choice says
 * which pending writes, changes of names and lengths had arrived.
 */

import { FileState } from './file-state.ts'
import { applyNames } from './recording-files.ts'
import { mix, SECTOR_SIZE, type Sector, ZERO } from './sector.ts'
import type { Timeline, TimelineFile } from './timeline.ts'
import type { Snapshot, Trace } from './trace.ts'

/**
 * What of the pending had arrived: for each write or name 0, 1, or for a torn write a mask with a 1 for each of its changed
 * sectors; for each file with pending lengths which one counts, 0 for the durable one.
 */
export interface Choice {
  readonly events: (0 | 1 | Uint8Array)[]
  readonly lengths: number[]
}

interface Version {
  readonly event: number
  readonly place: number
  readonly position: number
  readonly sector: Sector
}

interface Touched {
  readonly index: number
  readonly durable: Sector
  readonly versions: Version[]
}

interface FileWork {
  readonly file: TimelineFile
  readonly state: FileState
  readonly touched: Touched[]
  /** Which entry of `Choice.lengths` is this file's; -1 for none. */
  readonly lengthPlace: number
  readonly cuts: boolean
}

/** Files and names in one state. */
export class CrashDisk {
  readonly files = new Map<number, FileState>()
  names: ReadonlyMap<string, number> = new Map()
  /** Files that have pending lengths, in the order of `Choice.lengths`. */
  lengthFiles: TimelineFile[] = []
  #work: FileWork[] = []
  #timeline: Timeline | undefined
  #nameHash = 0

  /** Room for everything that the trace writes; `clusterSectors` says how a file is divided. */
  constructor(trace: Trace, clusterSectors: ReadonlyMap<number, number>) {
    const room = new Map<number, number>()
    for (const { id, sectors } of trace.start.files.values()) room.set(id, sectors.length)
    for (const entry of trace.entries) {
      if (entry.op === 'name') {
        for (const { file } of entry.set) if (file > 0) room.set(file, room.get(file) ?? 0)
      }
      if (entry.op !== 'write' && entry.op !== 'zero' && entry.op !== 'truncate') continue
      const end = entry.op === 'truncate' ? entry.size : entry.offset + entry.length
      const count = Math.ceil(end / SECTOR_SIZE)
      room.set(entry.file, Math.max(room.get(entry.file) ?? 0, count))
    }
    for (const [id, count] of room) {
      this.files.set(id, new FileState(id, count, clusterSectors.get(id) ?? 1))
    }
    for (const { id, sectors, length } of trace.start.files.values()) {
      const state = this.files.get(id) as FileState
      for (const [index, sector] of sectors.entries()) state.setWithin(index, sector, length)
      state.length = length
    }
  }

  /** The disk of a snapshot: nothing is pending. */
  static of(snapshot: Snapshot, clusterSectors: ReadonlyMap<number, number>): CrashDisk {
    const disk = new CrashDisk({ start: snapshot, entries: [] }, clusterSectors)
    disk.names = snapshot.names
    return disk
  }

  /** Goes to the present position of the timeline; `apply` chooses among its states from now on. */
  moveTo(timeline: Timeline): void {
    for (const { file, state, touched } of this.#work) {
      for (const { index } of touched) {
        state.setWithin(index, file.sectors[index] ?? ZERO, file.length)
      }
      state.length = file.length
    }
    if (this.#timeline !== timeline) this.#takeOver(timeline)
    this.#timeline = timeline
    this.lengthFiles = [...timeline.files.values()].filter(({ lengths }) => lengths.length > 0)
    this.#work = [...timeline.files.values()].map((file) => this.#workFor(file, timeline))
  }

  /** Brings everything that is durable by now, however far the timeline has gone. */
  #takeOver(timeline: Timeline): void {
    for (const { id, sectors, length } of timeline.files.values()) {
      const state = this.files.get(id) as FileState
      for (let index = 0; index < state.sectors.length; index++) {
        state.setWithin(index, sectors[index] ?? ZERO, length)
      }
      state.length = length
    }
  }

  #workFor(file: TimelineFile, timeline: Timeline): FileWork {
    const touched = new Map<number, Touched>()
    const touch = (index: number): Touched => {
      let one = touched.get(index)
      if (one === undefined) {
        one = { index, durable: file.sectors[index] ?? ZERO, versions: [] }
        touched.set(index, one)
      }
      return one
    }
    timeline.pending.forEach((one, event) => {
      if (one.kind !== 'write' || one.file !== file.id) return
      one.changes.forEach(({ index, sector }, place) => {
        touch(index).versions.push({ event, place, position: one.position, sector })
      })
    })
    const sizes = [file.length, ...file.lengths.map(({ size }) => size)]
    const end = Math.ceil(Math.max(...sizes) / SECTOR_SIZE)
    if (file.lengths.length > 0) {
      for (let index = Math.floor(Math.min(...sizes) / SECTOR_SIZE); index < end; index++) {
        if (file.sectors[index] !== undefined && file.sectors[index] !== ZERO) touch(index)
      }
    }
    return {
      file,
      state: this.files.get(file.id) as FileState,
      touched: [...touched.values()],
      lengthPlace: this.lengthFiles.indexOf(file),
      cuts: file.lengths.some(({ truncates }) => truncates),
    }
  }

  /** Goes to the state that the choice describes. */
  apply(choice: Choice): void {
    for (const work of this.#work) {
      const { file, state, touched, lengthPlace } = work
      const chosen = lengthPlace < 0 ? 0 : (choice.lengths[lengthPlace] as number)
      const length = chosen === 0 ? file.length : (file.lengths[chosen - 1]?.size ?? file.length)
      state.length = length
      for (const one of touched) {
        const { durable, versions } = one
        let sector = durable
        let position = -1
        for (let at = versions.length - 1; at >= 0; at--) {
          const version = versions[at] as Version
          const had = choice.events[version.event]
          if (had === 1 || (typeof had === 'object' && had[version.place] === 1)) {
            sector = version.sector
            position = version.position
            break
          }
        }
        if (work.cuts && isCut(file, one.index, position, chosen)) sector = ZERO
        state.setWithin(one.index, sector, length)
      }
    }
    this.#applyNames(choice)
  }

  #applyNames(choice: Choice): void {
    const timeline = this.#timeline as Timeline
    this.names = timeline.names
    this.#nameHash = 0
    let names: Map<string, number> | undefined
    timeline.pending.forEach((one, event) => {
      if (one.kind !== 'name' || choice.events[event] === 0) return
      names ??= new Map(timeline.names)
      applyNames(names, one.entry)
      this.#nameHash ^= mix(one.position, 0x5bd1e995)
    })
    if (names !== undefined) this.names = names
  }

  /** A number for the state as a whole; `salt` tells apart what should be looked at twice. */
  key(salt: number): number {
    let key = mix(salt, 0x51ed27) ^ this.#nameHash
    let rest = salt
    for (const [id, file] of this.files) {
      const own = file.key
      const low = (own % 0x100000000) | 0
      key ^= mix(id, low)
      rest = mix(id ^ rest, Math.floor(own / 0x800) | 0)
    }
    return (key >>> 0) * 0x200000 + (rest >>> 11)
  }

  /** The state as files and names of its own. */
  snapshot(): Snapshot {
    const files = new Map(
      [...this.files].map(([id, { sectors, length }]) => {
        const count = Math.ceil(length / SECTOR_SIZE)
        return [id, { id, sectors: sectors.slice(0, count), length }]
      }),
    )
    return { files, names: new Map(this.names) }
  }
}

/** Whether a chosen truncation took the sector away after it was written. */
function isCut(file: TimelineFile, index: number, position: number, chosen: number): boolean {
  for (let at = 0; at < chosen; at++) {
    const length = file.lengths[at]
    if (length?.truncates && length.position > position && length.size <= index * SECTOR_SIZE)
      return true
  }
  return false
}
