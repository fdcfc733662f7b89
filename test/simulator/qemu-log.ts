/**
 * Logs of QEMU's blklogwrites driver, in the format of dm-log-writes, as traces. Such a log knows nothing of the length of the
 * file: it is taken to be long enough from the beginning.
 */

import { RecordingFiles } from './recording-files.ts'
import type { Snapshot, Trace } from './trace.ts'

const MAGIC = 0x6a736677736872n
const FLAG = { flush: 1n, fua: 2n, discard: 4n, mark: 8n } as const

/** One entry of a log. */
export interface LogEntry {
  readonly offset: number
  readonly length: number
  readonly flags: bigint
  readonly data: Uint8Array | undefined
}

/** Parses a log. Throws a RangeError where it is none. */
export function parseLog(bytes: Uint8Array): LogEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getBigUint64(0, true) !== MAGIC) throw new RangeError('no log of dm-log-writes')
  const count = Number(view.getBigUint64(16, true))
  const sectorSize = view.getUint32(24, true)
  const entries: LogEntry[] = []
  let at = sectorSize
  for (let index = 0; index < count; index++) {
    const offset = Number(view.getBigUint64(at, true)) * sectorSize
    const length = Number(view.getBigUint64(at + 8, true)) * sectorSize
    const flags = view.getBigUint64(at + 16, true)
    at += sectorSize
    const hasData = length > 0 && (flags & (FLAG.discard | FLAG.mark)) === 0n
    entries.push({
      offset,
      length,
      flags,
      data: hasData ? bytes.slice(at, at + length) : undefined,
    })
    if (hasData) at += length
  }
  return entries
}

/** The trace that a log tells of, on an image at `path` that had these bytes before, and what was there at its end. */
export async function traceOf(
  entries: readonly LogEntry[],
  path: string,
  before: Uint8Array,
): Promise<{ trace: Trace; end: Snapshot }> {
  const files = new RecordingFiles()
  const ends = entries.map(({ offset, length }) => offset + length)
  const grown = new Uint8Array(Math.max(before.length, ...ends))
  grown.set(before)
  files.put(path, grown)
  files.startRecording()
  const file = await files.open(path, 'write')
  files.note({ op: 'begin', step: 1 })
  for (const { offset, length, flags, data } of entries) {
    if ((flags & FLAG.flush) !== 0n) await file.sync()
    if (data !== undefined) file.writeSync(data, offset)
    else if ((flags & FLAG.discard) !== 0n) file.punchHole(offset, length)
    if ((flags & FLAG.fua) !== 0n) await file.sync()
  }
  files.note({ op: 'lasting', step: 1 })
  return { trace: files.trace, end: files.snapshot() }
}
