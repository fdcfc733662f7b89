/**
 * The outline of zstd data (RFC 8878, section 3.1): where a frame ends and what its header
 * promises, without unpacking it. QEMU stores frames without their size and fills up the sector
 * behind them, which no decoder likes.
 */

/** What is known about a frame before unpacking it. */
export interface ZstdFrame {
  /** How long the frame is, packed. */
  readonly length: number
  /** How long its content is, where its header says so. */
  readonly contentSize: number | undefined
  /** How much of the content a decoder has to remember. */
  readonly windowSize: number
  /** A frame of foreign data without content; it is to be stepped over. */
  readonly skippable: boolean
}

const MAGIC = 0xfd2fb528
const SKIPPABLE_MAGIC = 0x184d2a50
const BLOCK_HEADER = 3
const CHECKSUM = 4
const RLE_BLOCK = 1
const RESERVED_BLOCK = 3
const DICTIONARY_ID_LENGTHS = [0, 1, 2, 4]

/**
 * The frame that begins at `start`, or a word on why there is none (`cut short`, `no frame`, …).
 */
export function outlineFrame(bytes: Uint8Array, start: number): ZstdFrame | string {
  if (start + 8 > bytes.length) return 'cut short'
  const magic = littleEndian(bytes, start, 4)
  if (magic - (magic % 16) === SKIPPABLE_MAGIC) {
    const length = 8 + littleEndian(bytes, start + 4, 4)
    if (start + length > bytes.length) return 'cut short'
    return { length, contentSize: 0, windowSize: 0, skippable: true }
  }
  if (magic !== MAGIC) return 'no frame'
  const header = readHeader(bytes, start + 4)
  if (typeof header === 'string') return header
  const end = endOfBlocks(bytes, header.end)
  if (typeof end === 'string') return end
  const length = end + (header.checksum ? CHECKSUM : 0) - start
  if (start + length > bytes.length) return 'cut short'
  return {
    length,
    contentSize: header.contentSize,
    windowSize: header.windowSize,
    skippable: false,
  }
}

interface Header {
  readonly end: number
  readonly contentSize: number | undefined
  readonly windowSize: number
  readonly checksum: boolean
}

function readHeader(bytes: Uint8Array, start: number): Header | string {
  const descriptor = bytes[start]!
  const singleSegment = (descriptor & 0x20) !== 0
  if ((descriptor & 0x08) !== 0) return 'unknown frame header'
  const dictionaryLength = DICTIONARY_ID_LENGTHS[descriptor & 3]!
  const sizeFlag = descriptor >> 6
  const sizeLength = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << sizeFlag
  let at = start + 1
  const end = at + (singleSegment ? 0 : 1) + dictionaryLength + sizeLength
  if (end > bytes.length) return 'cut short'
  let windowSize = 0
  if (!singleSegment) {
    const window = bytes[at++]!
    const base = 2 ** (10 + (window >> 3))
    windowSize = base + (base / 8) * (window & 7)
  }
  if (littleEndian(bytes, at, dictionaryLength) !== 0) return 'needs a dictionary'
  at += dictionaryLength
  const contentSize =
    sizeLength === 0
      ? undefined
      : littleEndian(bytes, at, sizeLength) + (sizeLength === 2 ? 256 : 0)
  if (singleSegment) windowSize = contentSize ?? 0
  return { end, contentSize, windowSize, checksum: (descriptor & 0x04) !== 0 }
}

/** Where the last block ends. */
function endOfBlocks(bytes: Uint8Array, start: number): number | string {
  let at = start
  for (;;) {
    if (at + BLOCK_HEADER > bytes.length) return 'cut short'
    const header = littleEndian(bytes, at, BLOCK_HEADER)
    const type = (header >> 1) & 3
    if (type === RESERVED_BLOCK) return 'unknown block'
    at += BLOCK_HEADER + (type === RLE_BLOCK ? 1 : header >> 3)
    if (at > bytes.length) return 'cut short'
    if ((header & 1) !== 0) return at
  }
}

/** A little-endian number of `length` bytes; above 2^53 rounded, which no limit lets through. */
function littleEndian(bytes: Uint8Array, at: number, length: number): number {
  let value = 0
  for (let index = length - 1; index >= 0; index--) value = value * 256 + bytes[at + index]!
  return value
}
