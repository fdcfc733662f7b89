/**
 * The LUKS version 1 header that describes how an image is encrypted: bytes -> values. Nothing here decrypts.
 * On-disk format: "LUKS On-Disk Format Specification" 1.2.3, section 2.
 */

import { readU16, readU32 } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { SECTOR_SIZE } from './constants.ts'

/** One of the eight places for a passphrase. */
export interface LuksSlot {
  readonly active: boolean
  /** Rounds of the key derivation; for active slots. */
  readonly iterations: number
  /** Where the key material lies, from the start of the LUKS header. */
  readonly keyOffset: number
  readonly stripes: number
}

/** What the header says in clear. */
export interface LuksHeader {
  /** Cipher with the size of its key, for example `aes-256`. */
  readonly cipher: string
  readonly mode: string
  /** How the initialisation vector of a sector is made. */
  readonly ivGenerator: string
  /** The hash within the generator, for generators that have one. */
  readonly ivHash: string | undefined
  readonly hash: string
  readonly uuid: string
  /** Where the encrypted data would begin, from the start of the LUKS header. */
  readonly payloadOffset: number
  readonly masterKeyIterations: number
  readonly slots: readonly LuksSlot[]
}

/** Bytes of the header up to the end of its last slot. */
export const LUKS_HEADER_LENGTH = 592
const MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]
const SLOT_COUNT = 8
const SLOT_LENGTH = 48
const FIRST_SLOT = 208
const SLOT_ACTIVE = 0x00ac71f3

/** Parses a header of at least `LUKS_HEADER_LENGTH` bytes; throws an ImageError, code `LUKS_HEADER`. */
export function parseLuksHeader(bytes: Uint8Array): LuksHeader {
  if (bytes.length < LUKS_HEADER_LENGTH) throw bad(`ends after ${bytes.length} bytes`)
  if (MAGIC.some((byte, index) => bytes[index] !== byte)) throw bad('has no LUKS signature')
  const version = readU16(bytes, 6)
  if (version !== 1) throw bad(`has version ${version}, only 1 is supported`)
  const [mode = '', generator = '', ivHash] = textAt(bytes, 40, 32).split(/[-:]/)
  // XTS takes two keys of the cipher's size.
  const keyBits = (readU32(bytes, 108) * 8) / (mode === 'xts' ? 2 : 1)
  return {
    cipher: `${textAt(bytes, 8, 32)}-${keyBits}`,
    mode,
    ivGenerator: generator,
    ivHash,
    hash: textAt(bytes, 72, 32),
    uuid: textAt(bytes, 168, 40),
    payloadOffset: readU32(bytes, 104) * SECTOR_SIZE,
    masterKeyIterations: readU32(bytes, 164),
    slots: Array.from({ length: SLOT_COUNT }, (_, index) =>
      slotAt(bytes, FIRST_SLOT + index * SLOT_LENGTH),
    ),
  }
}

function slotAt(bytes: Uint8Array, at: number): LuksSlot {
  return {
    active: readU32(bytes, at) === SLOT_ACTIVE,
    iterations: readU32(bytes, at + 4),
    keyOffset: readU32(bytes, at + 40) * SECTOR_SIZE,
    stripes: readU32(bytes, at + 44),
  }
}

function textAt(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length)
  const end = field.indexOf(0)
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end))
}

function bad(what: string): ImageError {
  return new ImageError('LUKS_HEADER', `encryption header ${what}`, {
    context: { structure: 'encryption header' },
  })
}
