/** What a verb is to the fault loop, and the record that guest writes keep of what may be read after them. */

import type { FileSystem } from '../../src/storage/index.ts'
import type { DiskFiles } from '../support/disk-files.ts'

/** What a disk may read as: as it was when it was last settled, or after any write begun since. */
export class Tape {
  #possible: Uint8Array[] = []
  #now = new Uint8Array(0)
  /** Counts what was noted: equal for runs that came equally far. */
  step = 0

  start(bytes: Uint8Array): void {
    this.#now = bytes.slice()
    this.#possible = [this.#now]
  }

  /** A change is about to be made. */
  begin(change: (bytes: Uint8Array) => void): void {
    this.#now = this.#now.slice()
    change(this.#now)
    this.#possible.push(this.#now)
    this.step++
  }

  /** All that was begun is durable. */
  settle(): void {
    this.#possible = [this.#now]
    this.step++
  }

  /** Whether each byte of `found` is one that may be there. */
  allows(found: Uint8Array): boolean {
    if (found.length !== this.#now.length) return false
    if (this.#possible.some((bytes) => Buffer.compare(bytes, found) === 0)) return true
    return found.every((byte, at) => this.#possible.some((bytes) => bytes[at] === byte))
  }

  /** Whether the disk reads as after everything that was begun. */
  isDone(found: Uint8Array): boolean {
    return Buffer.compare(this.#now, found) === 0
  }
}

/** A verb, and what it may do to whom. */
export interface FaultVerb {
  readonly name: string
  /** The files that it finds; for the loop to clone. */
  readonly setup: (seed: number) => Promise<DiskFiles>
  readonly run: (files: FileSystem, tape: Tape, seed: number) => Promise<unknown>
  /** Files, or folders with all in them, that may read otherwise afterwards: as before or as after. */
  readonly changes?: readonly string[]
  /** An image that the verb writes to as a guest does. */
  readonly guest?: string
  /** Files that are overwritten in place: neither old nor new until the verb was done again. */
  readonly inPlace?: readonly string[]
  /** Files that a failure may leave removed: a new image is under construction in their place. */
  readonly loses?: readonly string[]
  /** A folder that a cut may leave empty; with it there the line done again means a place inside it, as with `mv`. */
  readonly emptyFolder?: string
  /** Space may be leaked. */
  readonly leaks?: boolean
  /** How it rejects besides, whatever the fault. */
  readonly codes?: readonly string[]
  /** The image is damaged before, and whole afterwards. */
  readonly isDamaged?: boolean
  /** It is about one image and is tried with large clusters too. */
  readonly isOfOne?: boolean
  /** Files that somebody else may take away, or change, below the verb. */
  readonly bases?: readonly string[]
  /** All that can be read: names of views and what they read as. Of every file where left out. */
  readonly collect?: (files: DiskFiles) => Promise<ReadonlyMap<string, Uint8Array>>
  /** What must read as before or after even before it is mended. */
  readonly early?: (files: DiskFiles) => Promise<ReadonlyMap<string, Uint8Array>>
  /** Only every so-manyth call is tried by default: it takes long. */
  readonly lighter?: number
  /** What a user does about a verb that was cut off, before all is as before or after. */
  readonly mend?: (files: DiskFiles) => Promise<unknown>
  /** Doing it once more ends as once: else that is only tried where nothing was done yet. */
  readonly repeats?: boolean
  /**
   * It only reads, and what `run` resolves to is the same every time, but where it says itself that something is missing: facts about
   * files, which others may change meanwhile, or what disks read as.
   */
  readonly answers?: 'facts' | 'content'
}
