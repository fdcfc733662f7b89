/**
 * The snapshot table as a check reads it: an entry that breaks a rule is a finding, and only a table that cannot be read ends the
 * check. What the L1 tables of the snapshots refer to is counted by `check-references.ts`.
 */

import { hex, readU16, readU32, readU64Rounded, roundUp } from '../base/bytes.ts'
import { type Findings, hexWords } from './check-findings.ts'
import type { ImageParts } from './image-parts.ts'
import { LIMIT } from './layout/constants.ts'
import { decodeName } from './layout/names.ts'
import type { L1Place, OffsetWords } from './walk.ts'

/** Where an entry of the table lies, from the table's beginning, and how long its parts are in bytes. */
export interface SnapshotEntry {
  readonly at: number
  /** On disk; the field that says so can be wrong where a table was mended. */
  readonly extraSize: number
  /** ID and name. */
  readonly textSize: number
}

/** What a check needs to know of a snapshot. */
export interface CheckedSnapshot extends L1Place {
  readonly id: string
  readonly name: string
  readonly entry: SnapshotEntry
}

/** The snapshots that were read and the length of their table in bytes. */
export interface ReadSnapshots {
  readonly snapshots: readonly CheckedSnapshot[]
  readonly length: number
  /** What had to be done to read a broken table; see repair-snapshot-table.ts. */
  readonly mended?: readonly string[]
}

/** The snapshots, or why they cannot be read. */
export type SnapshotReading = ReadSnapshots | { readonly failure: string }

const ENTRY_LENGTH = 40
/** Extra data that version 3 demands: VM state size and disk size. */
const DEMANDED_EXTRA = 16
const WINDOW = 64 * 1024

/** Reads the table and adds what is wrong with it to `findings`. */
export async function readSnapshots(
  parts: ImageParts,
  findings: Findings,
): Promise<SnapshotReading> {
  const { snapshotCount, snapshotsOffset, geometry } = parts
  if (snapshotCount > LIMIT.snapshotCount) {
    findings.error('SNAPSHOT_TABLE', () => 'ERROR snapshot table too large')
    removable(findings, snapshotCount - LIMIT.snapshotCount)
    return { failure: 'File too large' }
  }
  if (
    snapshotsOffset % geometry.clusterSize !== 0 ||
    snapshotsOffset + snapshotCount * ENTRY_LENGTH >= 2 ** 63
  ) {
    findings.error('SNAPSHOT_TABLE', () => 'ERROR snapshot table offset invalid', {
      offset: snapshotsOffset,
    })
    return { failure: 'Invalid argument' }
  }
  return readEntries(parts, findings)
}

async function readEntries(parts: ImageParts, findings: Findings): Promise<SnapshotReading> {
  const { snapshotCount, geometry } = parts
  const window = new Window(parts)
  const snapshots: CheckedSnapshot[] = []
  let end = 0
  for (let index = 0; index < snapshotCount; index++) {
    const at = roundUp(end, 8)
    const fixed = await window.bytes(at, ENTRY_LENGTH)
    const extraSize = readU32(fixed, 36)
    if (extraSize > LIMIT.snapshotExtraSize) {
      const text = `ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry ${index}`
      findings.error('SNAPSHOT_EXTRA_DATA', () => text)
      findings.note(
        'SNAPSHOT_EXTRA_DATA',
        () => 'You can force-remove this extra metadata with qemu-img check -r all',
      )
      return { failure: 'File too large' }
    }
    const textSize = readU16(fixed, 12) + readU16(fixed, 14)
    const own = fixed.slice(0, ENTRY_LENGTH)
    const texts = await window.bytes(at + ENTRY_LENGTH + extraSize, textSize)
    snapshots.push(snapshotAt(own, texts, { at, extraSize, textSize }, geometry.clusterSize))
    end = at + ENTRY_LENGTH + extraSize + textSize
    if (end > LIMIT.snapshotTableSize) {
      findings.error(
        'SNAPSHOT_TABLE',
        () => 'ERROR failed to read the snapshot table: Snapshot table is too big',
      )
      removable(findings, snapshotCount - index)
      return { failure: 'File too large' }
    }
  }
  const reading = { snapshots, length: end }
  noteSnapshots(parts, reading, findings)
  return reading
}

/** Adds to `findings` what is wrong with a table that was read. */
export function noteSnapshots(
  { header }: ImageParts,
  { snapshots, mended = [] }: ReadSnapshots,
  findings: Findings,
): void {
  for (const line of mended) findings.corruption('SNAPSHOT_TABLE', () => line)
  if (header.version !== 3) return
  for (const [index, { entry }] of snapshots.entries()) {
    if (entry.extraSize >= DEMANDED_EXTRA) continue
    findings.corruption(
      'SNAPSHOT_INCOMPLETE',
      () => `ERROR snapshot table entry ${index} is incomplete`,
    )
  }
}

/** A snapshot by the fixed part of its entry and its texts. */
export function snapshotAt(
  fixed: Uint8Array,
  texts: Uint8Array,
  entry: SnapshotEntry,
  clusterSize: number,
): CheckedSnapshot {
  const offsetWords = [readU32(fixed, 0), readU32(fixed, 4)] as const
  const l1Size = readU32(fixed, 8)
  const idSize = readU16(fixed, 12)
  return {
    id: cText(texts.subarray(0, idSize)),
    name: cText(texts.subarray(idSize, entry.textSize)),
    entry,
    l1TableOffset: readU64Rounded(fixed, 0),
    l1Size,
    offsetWords,
    fault: l1Fault(offsetWords, l1Size, clusterSize),
  }
}

function removable(findings: Findings, count: number): void {
  findings.note(
    'SNAPSHOT_TABLE',
    () => `You can force-remove all ${count} overhanging snapshots with qemu-img check -r all`,
  )
}

/** Text as C prints it: up to the first NUL. */
function cText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return decodeName(end === -1 ? bytes : bytes.subarray(0, end))
}

/** Reads a table from front to back in larger steps. */
class Window {
  readonly #parts: ImageParts
  #buffer = new Uint8Array(0)
  #start = 0

  constructor(parts: ImageParts) {
    this.#parts = parts
  }

  /** Bytes from `at` of the table; valid until the next call. */
  async bytes(at: number, length: number): Promise<Uint8Array> {
    if (at < this.#start || at + length > this.#start + this.#buffer.length) {
      const { host, snapshotsOffset } = this.#parts
      this.#start = at
      const needed = Math.max(length, Math.min(WINDOW, host.size - snapshotsOffset - at))
      this.#buffer = new Uint8Array(needed)
      await host.read(snapshotsOffset + at, this.#buffer)
    }
    return this.#buffer.subarray(at - this.#start, at - this.#start + length)
  }
}

/** Why the L1 table of a snapshot cannot be gone through; its offset comes in two words, since any 64 bits can stand there. */
function l1Fault([hi, lo]: OffsetWords, l1Size: number, clusterSize: number): string | undefined {
  if ((lo & (clusterSize - 1)) !== 0) {
    return `l1_offset=0x${hexWords(hi, lo)}: L1 table is not cluster aligned`
  }
  if (l1Size * 8 > LIMIT.l1Size) return `l1_size=${hex(l1Size)}: L1 table is too large`
  return undefined
}
