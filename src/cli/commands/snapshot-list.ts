/** The table of internal snapshots, as `snapshot -l` and `info` print it. */

import { formatSize } from '../../base/units.ts'
import type { SnapshotRecord } from '../../qcow2/index.ts'

/** Heading, column titles and one line for each snapshot; nothing for none. */
export function snapshotLines(snapshots: readonly SnapshotRecord[]): string[] {
  if (snapshots.length === 0) return []
  const titles = row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT')
  return ['Snapshot list:', titles, ...snapshots.map(snapshotLine)]
}

function snapshotLine(snapshot: SnapshotRecord): string {
  return row(
    snapshot.id,
    snapshot.name,
    formatSize(snapshot.vmStateSize),
    localTime(snapshot.date.seconds),
    clock(snapshot.vmClock),
    snapshot.icount === undefined ? '' : String(BigInt.asIntN(64, snapshot.icount)),
  )
}

/** Columns widen as they must; the two names are measured in bytes, as qemu-img does. */
function row(
  id: string,
  tag: string,
  size: string,
  date: string,
  vmClock: string,
  icount: string,
): string {
  const names = `${padBytes(id, 9)} ${padBytes(tag, 16)} `
  return names + size.padStart(8) + date.padStart(20) + vmClock.padStart(13) + icount.padStart(11)
}

function padBytes(text: string, length: number): string {
  return text + ' '.repeat(Math.max(0, length - Buffer.byteLength(text)))
}

const two = (value: number | bigint): string => value.toString().padStart(2, '0')

function localTime(seconds: number): string {
  const date = new Date(seconds * 1000)
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-')
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`
}

function clock(nanoseconds: bigint): string {
  const milliseconds = nanoseconds / 1_000_000n
  const seconds = milliseconds / 1000n
  const parts = [seconds / 3600n, (seconds / 60n) % 60n, seconds % 60n].map(two)
  return `${parts.join(':')}.${(milliseconds % 1000n).toString().padStart(3, '0')}`
}
