/**
 * Takes one image through every verb of the command, in memory: all that read, then each that writes, on a copy. Each line ends with a
 * result or with one of our errors, told in one line; in time, with no more output and no longer a file than the image accounts for.
 */

import { CowpointError } from '../../src/base/errors.ts'
import { hostError, type OpenFile, type OpenMode } from '../../src/storage/index.ts'
import { isTold, type LineEnd, runWords } from '../faults/command-line.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { fieldTable, type TableRow } from './field-table.ts'

const DISK = '/vm/disk.qcow2'

/** Lines that read; their output may be what the disk is. */
export const READING: readonly (readonly string[])[] = [
  ['info', DISK],
  ['info', '--output=json', '--backing-chain', DISK],
  ['info', '--untrusted', DISK],
  ['map', '--output=json', DISK],
  ['map', '--untrusted', DISK],
  ['check', DISK],
  ['check', '--output=json', DISK],
  ['inspect', '--output=json', DISK],
  ['compare', DISK, DISK],
  ['checksum', DISK],
  ['diff', DISK],
  ['diff', '--from', '1', DISK],
  ['measure', '-O', 'qcow2', DISK],
  ['snapshot', '-l', DISK],
  ['snapshot', '-x', '1', DISK, '/vm/new.raw'],
  ['bitmap', '--dump', DISK, 'b0'],
  ['usage', DISK],
  ['chain', '--json', DISK],
  ['io', '-r', '-c', 'read 0 64k', '-c', 'map', DISK],
  ['dd', 'bs=64k', 'count=2', `if=${DISK}`, 'of=/vm/new.raw'],
  ['convert', '-O', 'raw', DISK, '/vm/new.raw'],
  ['convert', '-O', 'qcow2', '--snapshots', '--bitmaps', DISK, '/vm/new.qcow2'],
  ['convert', '--untrusted', '-O', 'raw', DISK, '/vm/new.raw'],
  ['checkpoint', 'list', DISK],
  ['checkpoint', 'tree', '--json', DISK],
  ['checkpoint', 'verify', DISK],
  ['relocate', '-n', DISK, '/vm/moved.qcow2'],
  ['check', '-r', 'all', '--dry-run', '--force', DISK],
  ['compact', '--dry-run', DISK],
]

/** Lines that write, each on a copy of its own. */
export const WRITING: readonly (readonly string[])[] = [
  ['check', '-r', 'all', '--force', '--drop-bitmaps', DISK],
  ['check', '-r', 'leaks', DISK],
  ['snapshot', '-c', 'ours', DISK],
  ['snapshot', '-a', '1', DISK],
  ['snapshot', '-d', 'one', DISK],
  ['resize', DISK, '+1M'],
  ['resize', '--shrink', DISK, '4K'],
  ['amend', '-o', 'refcount_bits=64', DISK],
  ['amend', '-o', 'compat=0.10', DISK],
  ['compact', '--zero', DISK],
  ['bitmap', '--add', DISK, 'ours'],
  ['bitmap', '--clear', DISK, 'b0'],
  ['rebase', '-u', '-b', '', DISK],
  ['commit', DISK],
  ['stream', DISK],
  ['io', '-c', 'write 0 70k', '-c', 'discard 0 64k', '-c', 'flush', DISK],
  ['checkpoint', 'create', 'ours', DISK],
  ['checkpoint', 'adopt', DISK],
  ['relocate', DISK, '/vm/moved.qcow2'],
  ['create', '-f', 'qcow2', DISK, '1M'],
]

/** What a line may end with (docs/errors.md). */
const STATUSES = new Set([0, 1, 2, 3, 4, 63, 64, 65, 74, 75])
const SLOWEST_MS = 2000
const STUCK_MS = 20_000
/** No file of these verbs reaches beyond the image by more. */
const GROWTH = 64 * 1024 * 1024

/** A disk on which no file gets longer than that. */
class ShortFiles extends DiskFiles {
  limit = Number.POSITIVE_INFINITY

  override async open(path: string, mode: OpenMode): Promise<OpenFile> {
    const file = await super.open(path, mode)
    const refuse = (end: number): void => {
      if (end <= this.limit) return
      throw hostError(Object.assign(new Error('EFBIG'), { code: 'EFBIG' }), 'write')
    }
    const write = file.writeSync.bind(file)
    file.writeSync = (source, position) => {
      refuse(position + source.length)
      return write(source, position)
    }
    file.write = async (source, position) => file.writeSync(source, position)
    const truncate = file.truncate.bind(file)
    file.truncate = async (size) => {
      refuse(size)
      await truncate(size)
    }
    return file
  }
}

/** What went wrong with an image, a text for each line; how many lines there were. */
export async function tryLines(
  bytes: Uint8Array,
): Promise<{ readonly failures: readonly string[]; readonly lineCount: number }> {
  const failures: string[] = []
  for (const [lines, isReading] of [[READING, true] as const, [WRITING, false] as const]) {
    for (const words of lines) {
      const wrong = await tryLine(bytes, words, isReading)
      if (wrong !== undefined) failures.push(`${words.join(' ')}: ${wrong}`)
    }
  }
  return { failures, lineCount: READING.length + WRITING.length }
}

async function tryLine(
  bytes: Uint8Array,
  words: readonly string[],
  isReading: boolean,
): Promise<string | undefined> {
  const files = new ShortFiles()
  files.limit = bytes.length + GROWTH
  await files.makeFolder('/vm')
  files.put(DISK, bytes)
  const start = process.cpuUsage()
  const end = await runWords(files, words, AbortSignal.timeout(STUCK_MS))
  const { user, system } = process.cpuUsage(start)
  if ((user + system) / 1000 > SLOWEST_MS) return `${(user + system) / 1000} ms`
  if (isReading && Buffer.compare(files.contents(DISK), bytes) !== 0) return 'it changed the image'
  return wrongEnd(end, bytes.length)
}

function wrongEnd(end: LineEnd, size: number): string | undefined {
  const { status, stdout, stderr, error } = end
  if (!STATUSES.has(status)) return `it ends with ${status}: ${stderr}`
  if (error !== undefined && !(error instanceof CowpointError)) return `it throws: ${stderr}`
  if (error instanceof CowpointError && !isTold(end, error)) return `it says only: ${stderr}`
  const output = stdout.length + stderr.length
  // Each wrong entry of 8 bytes has lines of some hundred bytes, as in qemu-img: again for each table that leads to it, of which
  // a wrong L1 size makes a dozen, and a repair tells of it before and after.
  return output > 64 * 1024 + 512 * size ? `it prints ${output} characters` : undefined
}

/** A row for each field: another value of it, and another kind of image, for each `turn`. */
export function rowsOfFields(turn: number): TableRow[] {
  const fields = new Map<string, TableRow[]>()
  for (const row of fieldTable()) {
    const field = row.key.split('/')[1] ?? ''
    const name = field === 'combined' ? row.key.replace(/^[^/]*/, '') : field
    fields.set(name, [...(fields.get(name) ?? []), row])
  }
  return [...fields.values()].map((rows, index) => {
    // A full turn of steps that do not divide the whole.
    const place = ((turn + index) * 0.618034) % 1
    return rows[Math.floor(place * rows.length)] as TableRow
  })
}
