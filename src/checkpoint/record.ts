/**
 * What images say about checkpoints themselves (docs/on-disk.md, "Checkpoint record"): a private header extension of each layer,
 * and a mark behind the extra data of each internal snapshot. Bytes <-> values; who writes them when is the verbs' affair.
 */

import { readU16, readU32, writeU16, writeU32 } from '../base/bytes.ts'
import { EXTENSION, type ExtensionChange, type HeaderExtension } from '../qcow2/index.ts'
import { isId, NAME_LIMIT } from './identity.ts'

/** How much of the guest a checkpoint is sure to hold: what was on its disks, or in its memory as well. */
export type Consistency = 'unknown' | 'crash' | 'filesystem' | 'memory'
/** `active` is written to, `frozen` is a checkpoint, `hidden` was one and is still read by several. */
export type LayerState = 'active' | 'frozen' | 'hidden'

/** What the record of a layer and the mark of a snapshot have in common. */
export interface CheckpointFacts {
  /** Of the checkpoint; of an active layer that of the operation which made it what it is. */
  readonly id: string
  /** The checkpoint that this one went on from; of an active layer the position. */
  readonly parent: string | undefined
  /** Number of this disk within the checkpoint, from 0, and of how many. */
  readonly disk: number
  readonly diskCount: number
  readonly consistency: Consistency
  /** Made by a verb, to keep what was current before it. */
  readonly automatic: boolean
}

/** The record in a layer's header. */
export interface LayerRecord extends CheckpointFacts {
  readonly state: LayerState
  /** The disk, whatever its layers are: the same in all of them. */
  readonly diskId: string
  /** Milliseconds since 1970. */
  readonly time: number
  /** Empty in an active layer. */
  readonly name: string
  /** The record of the raw file below, which has no room for it. */
  readonly base?: LayerRecord | undefined
}

/** The mark of an internal checkpoint; name and time are the snapshot's. */
export type SnapshotMark = CheckpointFacts

const VERSION = 1
const STATES: readonly LayerState[] = ['active', 'frozen', 'hidden']
const CONSISTENCIES: readonly Consistency[] = ['unknown', 'crash', 'filesystem', 'memory']
const AUTOMATIC = 1
const RECORD_LENGTH = 72
const MARK_LENGTH = 48
/** `CPCK` */
const MARK = 0x4350434b
const NO_ID = '0'.repeat(32)
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The bytes of a layer's record. */
export function encodeRecord(record: LayerRecord): Uint8Array {
  const name = new TextEncoder().encode(record.name)
  const base = record.base === undefined ? new Uint8Array(0) : encodeRecord(record.base)
  const data = new Uint8Array(RECORD_LENGTH + name.length + base.length)
  data[0] = VERSION
  data[1] = STATES.indexOf(record.state)
  data[2] = CONSISTENCIES.indexOf(record.consistency)
  data[3] = record.automatic ? AUTOMATIC : 0
  writeU16(data, 4, record.disk)
  writeU16(data, 6, record.diskCount)
  putId(data, 8, record.id)
  putId(data, 24, record.parent)
  putId(data, 40, record.diskId)
  writeU32(data, 56, Math.floor(record.time / 2 ** 32))
  writeU32(data, 60, record.time % 2 ** 32)
  writeU16(data, 64, name.length)
  writeU16(data, 66, base.length)
  data.set(name, RECORD_LENGTH)
  data.set(base, RECORD_LENGTH + name.length)
  return data
}

/** The record in `data`; undefined for one of a version to come, or one that makes no sense. */
export function decodeRecord(data: Uint8Array): LayerRecord | undefined {
  if (data.length < RECORD_LENGTH || data[0] !== VERSION) return undefined
  const state = STATES[data[1] ?? 255]
  const consistency = CONSISTENCIES[data[2] ?? 255]
  const [nameLength, baseLength] = [readU16(data, 64), readU16(data, 66)]
  const name = textOf(data.subarray(RECORD_LENGTH, RECORD_LENGTH + nameLength))
  const [id, diskId] = [takeId(data, 8), takeId(data, 40)]
  const isWhole = data.length === RECORD_LENGTH + nameLength + baseLength
  if (!isWhole || state === undefined || consistency === undefined || name === undefined) {
    return undefined
  }
  if (nameLength > NAME_LIMIT || id === undefined || diskId === undefined) return undefined
  if (readU32(data, 56) > 0xffff) return undefined
  const base = baseLength === 0 ? undefined : decodeRecord(data.subarray(data.length - baseLength))
  return {
    ...{ state, consistency, name, id, diskId },
    parent: takeId(data, 24),
    automatic: ((data[3] ?? 0) & AUTOMATIC) !== 0,
    disk: readU16(data, 4),
    diskCount: readU16(data, 6),
    time: readU32(data, 56) * 2 ** 32 + readU32(data, 60),
    ...(base === undefined || base.base !== undefined ? {} : { base }),
  }
}

/** The record in a header, if it has one that is understood. */
export function recordOf(extensions: readonly HeaderExtension[]): LayerRecord | undefined {
  const found = extensions.find(({ type }) => type === EXTENSION.checkpoint)
  return found === undefined ? undefined : decodeRecord(found.data)
}

/** The change of a header that puts a record there, or takes it away. */
export function recordChange(record: LayerRecord | undefined): ExtensionChange {
  const data = record === undefined ? undefined : encodeRecord(record)
  return { type: EXTENSION.checkpoint, data }
}

/** The extra data of a snapshot with the mark in it, in the place of an old one; what others put there stays. */
export function withMark(extra: Uint8Array, mark: SnapshotMark): Uint8Array {
  const at = markOffset(extra)
  const rest = at === undefined ? extra : extra.subarray(0, at)
  const behind = at === undefined ? new Uint8Array(0) : extra.subarray(at + MARK_LENGTH)
  const start = Math.ceil(rest.length / 8) * 8
  const bytes = new Uint8Array(start + MARK_LENGTH + behind.length)
  bytes.set(rest)
  writeU32(bytes, start, MARK)
  bytes[start + 4] = VERSION
  bytes[start + 5] = CONSISTENCIES.indexOf(mark.consistency)
  bytes[start + 6] = mark.automatic ? AUTOMATIC : 0
  writeU16(bytes, start + 8, mark.disk)
  writeU16(bytes, start + 10, mark.diskCount)
  putId(bytes, start + 16, mark.id)
  putId(bytes, start + 32, mark.parent)
  bytes.set(behind, start + MARK_LENGTH)
  return bytes
}

/** The mark in a snapshot's extra data, if there is one that is understood. */
export function markOf(extra: Uint8Array): SnapshotMark | undefined {
  const at = markOffset(extra)
  if (at === undefined || extra[at + 4] !== VERSION) return undefined
  const consistency = CONSISTENCIES[extra[at + 5] ?? 255]
  const id = takeId(extra, at + 16)
  if (consistency === undefined || id === undefined) return undefined
  return {
    ...{ id, consistency },
    parent: takeId(extra, at + 32),
    automatic: ((extra[at + 6] ?? 0) & AUTOMATIC) !== 0,
    disk: readU16(extra, at + 8),
    diskCount: readU16(extra, at + 10),
  }
}

function markOffset(extra: Uint8Array): number | undefined {
  for (let at = 0; at + MARK_LENGTH <= extra.length; at += 8) {
    if (readU32(extra, at) === MARK) return at
  }
  return undefined
}

function putId(bytes: Uint8Array, at: number, id: string | undefined): void {
  if (id === undefined) return
  if (!isId(id)) throw new RangeError(`internal: '${id}' is no id`)
  bytes.set(Buffer.from(id, 'hex'), at)
}

function takeId(bytes: Uint8Array, at: number): string | undefined {
  const id = Buffer.from(bytes.subarray(at, at + 16)).toString('hex')
  return id === NO_ID ? undefined : id
}

function textOf(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}
