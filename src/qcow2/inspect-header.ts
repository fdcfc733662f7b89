/**
 * Judges the header cluster of an untrusted image: what the engine refuses to parse, and what it would accept from a friend only.
 * References are named, never followed. The tables that the header names are inspect-tables.ts's affair.
 */

import { readU32, readU64Rounded, roundUp } from '../base/bytes.ts'
import { formatSize } from '../base/units.ts'
import type { InspectBudget } from './inspect-budget.ts'
import type { InspectFindings } from './inspect-findings.ts'
import {
  AUTOCLEAR,
  COMPATIBLE,
  EXTENSION,
  FIELD,
  INCOMPATIBLE,
  KNOWN_AUTOCLEAR,
  LIMIT,
  SECTOR_SIZE,
  VERSION_2_HEADER_LENGTH,
} from './layout/constants.ts'
import { type Header, hasIncompatible, headerClusterSize, parseHeader } from './layout/header.ts'
import { decodeName } from './layout/names.ts'

/** A name of another file that an image holds. */
export interface InspectReference {
  readonly kind: 'backing' | 'data-file'
  /** As the image has it, cut after 1023 bytes; empty where it names none. */
  readonly name: string
  /** The format that the image gives it. */
  readonly format?: string
}

/** What is known after the header. */
export interface InspectedHeader {
  /** Undefined where it cannot be parsed; then there is nothing else to go by. */
  readonly header: Header | undefined
  readonly references: readonly InspectReference[]
}

const WORD = 'header'
const UNKNOWN_EXTENSIONS = 16
const FIRST_READ = 4096
const KNOWN_EXTENSIONS: readonly number[] = [
  EXTENSION.backingFormat,
  EXTENSION.featureNames,
  EXTENSION.bitmaps,
  EXTENSION.encryption,
  EXTENSION.dataFile,
  EXTENSION.baseFingerprint,
]

/** Reads and judges the header. */
export async function inspectHeader(
  budget: InspectBudget,
  findings: InspectFindings,
): Promise<InspectedHeader> {
  const bytes = await readCluster(budget, findings)
  if (bytes === undefined) return { header: undefined, references: [] }
  const padded = new Uint8Array(Math.max(bytes.length, SECTOR_SIZE))
  padded.set(bytes)
  const scan = scanExtensions(padded, findings)
  const references = judgeReferences(padded, scan, findings)
  if (scan.tooMany) return { header: undefined, references }
  try {
    const header = parseHeader(bytes)
    judgeFeatures(header, findings)
    judgeSizes(header, budget, findings)
    return { header, references }
  } catch (error) {
    findings.refuseError(error, WORD)
    return { header: undefined, references }
  }
}

/** The first cluster, or what the file has of it; undefined where not even its size can be believed. */
async function readCluster(
  budget: InspectBudget,
  findings: InspectFindings,
): Promise<Uint8Array | undefined> {
  const first = new Uint8Array(Math.min(FIRST_READ, budget.fileSize))
  await budget.read(0, first)
  let clusterSize: number
  try {
    clusterSize = headerClusterSize(first)
  } catch (error) {
    findings.refuseError(error, WORD)
    return undefined
  }
  const length = Math.min(clusterSize, budget.fileSize)
  if (length <= first.length) return first.subarray(0, length)
  const cluster = new Uint8Array(length)
  await budget.read(0, cluster)
  return cluster
}

/** What a look at the bare extensions tells. */
interface ExtensionScan {
  /** Data of the first of each known type. */
  readonly known: ReadonlyMap<number, Uint8Array>
  /** Where the list ends, its end marker included. */
  readonly end: number
  /** More unknown ones than anybody has: they are not taken into memory. */
  readonly tooMany: boolean
}

/** Goes through the extensions as they lie there, which is what other software will do with them. */
function scanExtensions(bytes: Uint8Array, findings: InspectFindings): ExtensionScan {
  const clusterSize = 2 ** readU32(bytes, 20)
  const version = readU32(bytes, FIELD.version)
  const start = version === 2 ? VERSION_2_HEADER_LENGTH : readU32(bytes, FIELD.headerLength)
  const nameOffset = readU64Rounded(bytes, FIELD.backingFileOffset)
  const area = Math.min(clusterSize, nameOffset === 0 ? clusterSize : nameOffset)
  const refuse = (message: string, offset: number): void =>
    findings.refuse('HEADER_EXTENSION', WORD, () => message, offset)
  const known = new Map<number, Uint8Array>()
  let unknownCount = 0
  let at = start
  for (;;) {
    if (at + 8 > area) {
      refuse('header extensions have no end marker', at)
      break
    }
    // What a short file lacks reads as zeroes, which is an end marker.
    if (at + 8 > bytes.length) break
    const type = readU32(bytes, at)
    const length = readU32(bytes, at + 4)
    if (type === EXTENSION.end) break
    const name = `header extension 0x${type.toString(16)}`
    if (at + 8 + length > Math.min(area, bytes.length)) {
      refuse(`${name} of ${length} bytes runs past its area`, at)
      break
    }
    if (!KNOWN_EXTENSIONS.includes(type)) unknownCount++
    else if (known.has(type)) refuse(`${name} is there twice`, at)
    else known.set(type, bytes.subarray(at + 8, at + 8 + length))
    at += 8 + roundUp(length, 8)
  }
  if (unknownCount > UNKNOWN_EXTENSIONS) {
    refuse(`${unknownCount} unknown header extensions, at most ${UNKNOWN_EXTENSIONS}`, start)
  } else if (unknownCount > 0) {
    findings.note('UNKNOWN_EXTENSION', WORD, () => `${unknownCount} unknown header extensions`)
  }
  return { known, end: at + 8, tooMany: unknownCount > UNKNOWN_EXTENSIONS }
}

/** The names of other files; each is a reason to refuse the image. */
function judgeReferences(
  bytes: Uint8Array,
  scan: ExtensionScan,
  findings: InspectFindings,
): InspectReference[] {
  const references: InspectReference[] = []
  const offset = readU64Rounded(bytes, FIELD.backingFileOffset)
  const size = readU32(bytes, FIELD.backingFileSize)
  if (offset !== 0 || size !== 0) {
    const end = offset + Math.min(size, LIMIT.backingNameLength)
    const name = offset === 0 ? '' : decodeName(bytes.subarray(Math.min(offset, bytes.length), end))
    const format = scan.known.get(EXTENSION.backingFormat)
    references.push({
      kind: 'backing',
      name,
      ...(format === undefined ? {} : { format: decodeName(format.subarray(0, 64)) }),
    })
    refuseReference('BACKING_REFERENCE', 'a backing file', name, findings, FIELD.backingFileOffset)
    if (offset < scan.end && offset + size > 0) {
      findings.refuse('BACKING_NAME', WORD, () => 'backing file name overlaps the header', offset)
    }
  }
  const data = scan.known.get(EXTENSION.dataFile)
  const modern = readU32(bytes, FIELD.version) === 3
  const has = (field: number, bit: bigint): boolean =>
    modern && (BigInt(readU32(bytes, field + 4)) & bit) !== 0n
  const external =
    has(FIELD.incompatibleFeatures, INCOMPATIBLE.dataFile) ||
    has(FIELD.autoclearFeatures, AUTOCLEAR.dataFileRaw)
  if (data !== undefined || external) {
    const name = data === undefined ? '' : decodeName(data.subarray(0, LIMIT.backingNameLength))
    references.push({ kind: 'data-file', name })
    refuseReference('DATA_FILE_REFERENCE', 'an external data file', name, findings)
  }
  return references
}

function refuseReference(
  code: string,
  what: string,
  name: string,
  findings: InspectFindings,
  offset?: number,
): void {
  const kind = suspicionOf(name)
  const remark = kind === undefined ? '' : ` (${kind})`
  findings.refuse(code, WORD, () => `image refers to ${what} ${printable(name)}${remark}`, offset)
}

/** What is odd about a name, if anything is. */
function suspicionOf(name: string): string | undefined {
  for (let at = 0; at < name.length; at++) {
    const unit = name.charCodeAt(at)
    if (unit === 0) return 'holds a NUL'
    if (unit < 0x20 || unit === 0x7f) return 'holds control characters'
  }
  if (name.includes('json:')) return 'holds options'
  if (/^[^:/]*:/.test(name)) return 'names a protocol'
  return undefined
}

const LONGEST_SHOWN = 200

/** A name as one line in quotes. */
function printable(name: string): string {
  const shown = name.length > LONGEST_SHOWN ? `${name.slice(0, LONGEST_SHOWN)}…` : name
  return JSON.stringify(shown)
}

function judgeFeatures(header: Header, findings: InspectFindings): void {
  if (hasIncompatible(header, INCOMPATIBLE.corrupt)) {
    findings.refuse('IMAGE_CORRUPT', WORD, () => 'image is marked corrupt')
  }
  if (hasIncompatible(header, INCOMPATIBLE.dirty)) {
    findings.note('IMAGE_DIRTY', WORD, () => 'image was not closed: its refcounts may be wrong')
  }
  const luks = header.extensions.some(({ type }) => type === EXTENSION.encryption)
  if (header.cryptMethod !== 0 || luks) {
    const method = header.cryptMethod === 1 ? 'AES' : 'LUKS'
    findings.refuse('ENCRYPTED', WORD, () => `guest data is encrypted (${method})`)
  }
  const compatible = header.compatibleFeatures & ~COMPATIBLE.lazyRefcounts
  const autoclear = header.autoclearFeatures & ~KNOWN_AUTOCLEAR
  if (compatible !== 0n || autoclear !== 0n) {
    const bits = `0x${compatible.toString(16)}, 0x${autoclear.toString(16)}`
    findings.note('UNKNOWN_FEATURE_BITS', WORD, () => `unknown compatible, autoclear bits: ${bits}`)
  }
  // Byte 0 is the compression type; nobody has given the others a meaning.
  if (header.tail.some((byte, index) => index > 0 && byte !== 0)) {
    findings.warn('UNKNOWN_HEADER_FIELD', WORD, () => 'header has fields that nobody knows')
  }
}

function judgeSizes(header: Header, budget: InspectBudget, findings: InspectFindings): void {
  const { size, refcountTableClusters, snapshotCount } = header
  if (size % 512 !== 0) {
    const message = () => `virtual size ${size} is not a multiple of 512`
    findings.refuse('VIRTUAL_SIZE', WORD, message, FIELD.size)
  }
  const { virtualSize, snapshotCount: most } = budget.limits
  if (virtualSize !== undefined && size > virtualSize) {
    findings.refuse(
      'VIRTUAL_SIZE',
      WORD,
      () => `virtual size ${formatSize(size)} is more than the allowed ${formatSize(virtualSize)}`,
      FIELD.size,
    )
  }
  if (refcountTableClusters === 0) {
    findings.refuse('REFCOUNT_TABLE', WORD, () => 'image has no refcount table')
  }
  if (snapshotCount > most) {
    const message = () => `${snapshotCount} snapshots, at most ${most} are accepted`
    findings.refuse('SNAPSHOT_COUNT', WORD, message, FIELD.snapshotCount)
  }
}
