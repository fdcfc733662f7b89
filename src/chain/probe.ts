/**
 * Finds out the format of a disk from its first bytes, as QEMU does. What has another format's mark is never taken for raw. A
 * guest writes the first bytes of a raw disk: what this finds must not decide what is opened for writing.
 */

import { bytesEqual, readU32 } from '../base/bytes.ts'

/** How many bytes it takes. */
export const PROBE_SIZE = 512

interface Mark {
  readonly format: string
  readonly offset?: number
  readonly bytes: Uint8Array
}

const mark = (format: string, text: string, offset = 0): Mark => ({
  format,
  offset,
  bytes: Uint8Array.from(text, (character) => character.charCodeAt(0)),
})

const MARKS: readonly Mark[] = [
  mark('qed', 'QED\0'),
  mark('vmdk', 'KDMV'),
  mark('vmdk', 'COWD'),
  mark('vmdk', '# Disk DescriptorFile'),
  mark('vdi', '\x7f\x10\xda\xbe', 0x40),
  mark('vpc', 'conectix'),
  mark('vhdx', 'vhdxfile'),
  mark('luks', 'LUKS\xba\xbe\0\x01'),
  mark('parallels', 'WithoutFreeSpace'),
  mark('parallels', 'WithouFreSpacExt'),
  mark('bochs', 'Bochs Virtual HD Image'),
  mark('cloop', '#!/bin/sh\n#V2.0 Format\n'),
]

const QCOW_MAGIC = 0x514649fb

/** The name of the format of a disk that begins with `bytes`: `raw` where they carry no mark. */
export function probeFormat(bytes: Uint8Array): string {
  if (bytes.length >= 8 && readU32(bytes, 0) === QCOW_MAGIC) {
    return readU32(bytes, 4) >= 2 ? 'qcow2' : 'qcow'
  }
  for (const { format, offset = 0, bytes: wanted } of MARKS) {
    if (bytesEqual(bytes.subarray(offset, offset + wanted.length), wanted)) return format
  }
  return 'raw'
}
