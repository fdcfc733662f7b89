/**
 * Taking a repair back. A repair overwrites nothing but header sector 0, so this remembers that sector, how long the file was, and
 * a digest of what was written behind it: as long as that is as it was left, the old image is still there, whole.
 */

import { breathe } from '../base/breathe.ts'
import { bytesEqual } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { createHash } from '../base/hash.ts'
import type { BlockDevice } from '../block/index.ts'
import { SECTOR_SIZE } from './layout/constants.ts'
import { HostFile } from './metadata/host-file.ts'

/** What takes a repair back. Bytes are in base64, so that it can be stored as JSON. */
export interface RepairUndo {
  readonly kind: 'cowpoint-undo'
  readonly version: 1
  /** Header sector 0 before the repair, and after it. */
  readonly header: string
  readonly repairedHeader: string
  /** Bytes of the file before the repair, and after it. */
  readonly fileSize: number
  readonly repairedFileSize: number
  /** Where the repair wrote, and the SHA-256 of what it wrote there. */
  readonly written: { readonly offset: number; readonly length: number; readonly digest: string }
}

const STEP = 1024 * 1024

/** The SHA-256 of a range of the file, in hex. */
export async function digestRange(host: HostFile, offset: number, length: number): Promise<string> {
  const hash = createHash('sha256')
  const buffer = new Uint8Array(Math.min(STEP, length))
  for (let done = 0; done < length; ) {
    const part = buffer.subarray(0, Math.min(buffer.length, length - done))
    await host.read(offset + done, part)
    hash.update(part)
    done += part.length
    await breathe()
  }
  return hash.digest('hex')
}

/**
 * Takes the repair back that `undo` (as it was stored) tells of: the image is as it was before, byte for byte. Throws an ImageError,
 * code `UNDO_INVALID`, where it is no such thing; an ImageError, code `UNDO_TOO_LATE`, where the image was changed since.
 */
export async function undoRepair(file: BlockDevice, undo: unknown): Promise<void> {
  const record = parseUndo(undo)
  const host = new HostFile(file)
  const sector = new Uint8Array(SECTOR_SIZE)
  await host.read(0, sector)
  const { offset, length, digest } = record.written
  const header = Buffer.from(record.header, 'base64')
  // An earlier call got as far as the header, and was cut off then.
  const isBack = bytesEqual(sector, header)
  if (isBack && host.size === record.fileSize) return
  const isUnchanged =
    host.size === record.repairedFileSize &&
    (isBack || bytesEqual(sector, Buffer.from(record.repairedHeader, 'base64'))) &&
    (await digestRange(host, offset, length)) === digest
  if (!isUnchanged) {
    throw new ImageError(
      'UNDO_TOO_LATE',
      'image was changed since the repair, or is another one, so it cannot be taken back',
      { context: { fileSize: host.size } },
    )
  }
  await host.write(0, header, 'metadata')
  await host.flush()
  if (record.fileSize !== host.size) await host.resize(record.fileSize)
  await host.flush()
}

function parseUndo(undo: unknown): RepairUndo {
  const record = undo as Partial<RepairUndo> | null | undefined
  const { written } = record ?? {}
  const isNumber = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
  const isSector = (value: unknown) =>
    typeof value === 'string' && Buffer.from(value, 'base64').length === SECTOR_SIZE
  const isUndo =
    record?.kind === 'cowpoint-undo' &&
    record.version === 1 &&
    isSector(record.header) &&
    isSector(record.repairedHeader) &&
    isNumber(record.fileSize) &&
    isNumber(record.repairedFileSize) &&
    isNumber(written?.offset) &&
    isNumber(written?.length) &&
    typeof written?.digest === 'string'
  if (isUndo) return record as RepairUndo
  throw new ImageError('UNDO_INVALID', 'undo file is not one of a repair')
}
