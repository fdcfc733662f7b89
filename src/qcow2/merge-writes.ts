/**
 * The writes of a merge: clusters that come piece by piece and go to places in a row are gathered into few long writes, in buffers
 * that are used again and again; one is filled while others are being written.
 */

import { alignedBytes } from '../base/aligned.ts'

const BUFFER_SIZE = 1024 * 1024
const BUFFER_COUNT = 4

/** Where the writes go. */
export interface MergeTarget {
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
  /** Awaited after every write of so many bytes. */
  readonly pace?: ((length: number) => Promise<void>) | undefined
}

interface Room {
  readonly bytes: Uint8Array
  /** What is being written out of it. */
  readonly writes: Promise<void>[]
}

/** Gathers neighbours into long writes. */
export class MergeWrites {
  readonly #target: MergeTarget
  readonly #rooms: Room[] = []
  readonly #roomSize: number
  #turn = 0
  /** Where in the present room what is not yet on its way begins and ends, and where it goes. */
  #start = 0
  #end = 0
  #place = 0

  /** Pieces are at most as long as `most`, or 1 MiB. */
  constructor(target: MergeTarget, most: number) {
    this.#target = target
    this.#roomSize = Math.max(BUFFER_SIZE, most)
  }

  /** Bytes to be filled by the caller, who then says of each part where it goes; valid until the next call. */
  async room(length: number): Promise<Uint8Array> {
    if (this.#end + length > this.#roomSize) {
      await this.#send()
      this.#turn = (this.#turn + 1) % BUFFER_COUNT
      await Promise.all(this.#room.writes.splice(0))
      this.#start = 0
      this.#end = 0
    }
    return this.#room.bytes.subarray(this.#end, this.#end + length)
  }

  /** Has `part`, of the room that was given out last and behind what was put before, written to `place`. */
  async put(place: number, part: Uint8Array): Promise<void> {
    const { bytes } = this.#room
    const at = part.byteOffset - bytes.byteOffset
    if (this.#end > this.#start && place === this.#place + this.#end - this.#start) {
      if (at !== this.#end) bytes.copyWithin(this.#end, at, at + part.length)
      this.#end += part.length
      return
    }
    await this.#send()
    this.#start = at
    this.#end = at + part.length
    this.#place = place
  }

  /** Waits until all is written; throws what a write threw. */
  async finish(): Promise<void> {
    await this.#send()
    await Promise.all(this.#rooms.flatMap(({ writes }) => writes))
  }

  /** Waits until no write is under way, whatever became of them. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#rooms.flatMap(({ writes }) => writes))
  }

  get #room(): Room {
    this.#rooms[this.#turn] ??= { bytes: alignedBytes(this.#roomSize), writes: [] }
    return this.#rooms[this.#turn] as Room
  }

  async #send(): Promise<void> {
    const length = this.#end - this.#start
    if (length === 0) return
    const { bytes, writes } = this.#room
    const write = this.#target.write(this.#place, bytes.subarray(this.#start, this.#end))
    write.catch(() => undefined)
    writes.push(write)
    this.#start = this.#end
    await this.#target.pace?.(length)
  }
}
