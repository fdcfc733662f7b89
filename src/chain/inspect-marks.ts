/**
 * Marks of other formats in an image that is one already: software that looks elsewhere in the file would take it for something else.
 * A raw disk has partitions and file systems of its own; there only the footer of a fixed VHD is odd.
 */

import { bytesEqual } from '../base/bytes.ts'
import type { BlockDevice } from '../block/index.ts'
import type { InspectFindings } from '../qcow2/index.ts'
import type { Format } from './driver.ts'

interface Mark {
  readonly name: string
  /** From the start of the file; negative from its end. */
  readonly offset: number
  readonly text: string
}

const FOOTER: Mark = { name: 'VHD', offset: -512, text: 'conectix' }
const MARKS: readonly Mark[] = [
  FOOTER,
  { name: 'VDI', offset: 0x40, text: '\x7f\x10\xda\xbe' },
  { name: 'a partition table', offset: 510, text: '\x55\xaa' },
  { name: 'GPT', offset: 512, text: 'EFI PART' },
  { name: 'GPT', offset: 4096, text: 'EFI PART' },
  { name: 'ISO 9660', offset: 0x8001, text: 'CD001' },
]

/** Warns of each mark. */
export async function inspectMarks(
  device: BlockDevice,
  format: Format,
  findings: InspectFindings,
): Promise<void> {
  for (const { name, offset, text } of format === 'raw' ? [FOOTER] : MARKS) {
    const at = offset < 0 ? device.size + offset : offset
    if (at < 0 || at + text.length > device.size) continue
    const there = new Uint8Array(text.length)
    await device.read(at, there)
    const wanted = Uint8Array.from(text, (character) => character.charCodeAt(0))
    if (!bytesEqual(there, wanted)) continue
    findings.warn('SECOND_FORMAT', 'image', () => `image bears the mark of ${name} too`, at)
  }
}
