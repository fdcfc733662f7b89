/** Judges the dirty bitmaps of an untrusted image: their directory, their tables, and the clusters that these name. */

import { hex } from '../base/bytes.ts'
import { formatSize, MIB } from '../base/units.ts'
import type { InspectBudget } from './inspect-budget.ts'
import type { InspectFindings } from './inspect-findings.ts'
import type { TableInspector } from './inspect-tables.ts'
import { bitmapTableEntries, parseBitmapDirectory } from './layout/bitmap-directory.ts'
import { AUTOCLEAR, LIMIT } from './layout/constants.ts'
import { entryOffset } from './layout/entries.ts'
import { bitmapsExtension } from './layout/extensions.ts'
import type { Header } from './layout/header.ts'

const STRUCTURE = 'bitmap directory'
const CODE = 'BITMAP_DIRECTORY'
/** The longest directory that is accepted; who opens the image keeps it in memory. */
const LONGEST_DIRECTORY = 4 * MIB

/** Looks at the bitmaps; how many there are. */
export async function inspectBitmaps(
  budget: InspectBudget,
  findings: InspectFindings,
  header: Header,
  tables: TableInspector,
): Promise<number> {
  let place: ReturnType<typeof bitmapsExtension>
  try {
    place = bitmapsExtension(header.extensions)
  } catch (error) {
    findings.refuseError(error, STRUCTURE)
    return 0
  }
  if (place === undefined) return 0
  if ((header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) {
    findings.note('BITMAPS_STALE', STRUCTURE, () => 'bitmaps were left behind by another writer')
    return 0
  }
  const { directoryOffset, directorySize, bitmapCount } = place
  if (directorySize > LONGEST_DIRECTORY) {
    const message = () => `bitmap directory is longer than ${formatSize(LONGEST_DIRECTORY)}`
    findings.refuse(CODE, STRUCTURE, message, directoryOffset)
    return bitmapCount
  }
  if (!tables.claim(STRUCTURE, directoryOffset, directorySize)) return bitmapCount
  const bytes = new Uint8Array(directorySize)
  await budget.read(directoryOffset, bytes)
  const names = new Set<string>()
  // An error of the directory ends the inspection as a finding.
  for (const record of parseBitmapDirectory(bytes, bitmapCount)) {
    if (names.has(record.name)) {
      findings.refuse(CODE, STRUCTURE, () => 'two bitmaps have one name', directoryOffset)
    }
    names.add(record.name)
    await inspectTable(record, { budget, findings, header, tables })
  }
  return bitmapCount
}

interface Inspection {
  readonly budget: InspectBudget
  readonly findings: InspectFindings
  readonly header: Header
  readonly tables: TableInspector
}

interface BitmapPlace {
  readonly tableOffset: number
  readonly tableSize: number
  readonly granularityBits: number
  readonly inUse: boolean
}

async function inspectTable(
  { tableOffset, tableSize, granularityBits, inUse }: BitmapPlace,
  { budget, findings, header, tables }: Inspection,
): Promise<void> {
  const clusterSize = 2 ** header.clusterBits
  const structure = 'bitmap table'
  const needed = bitmapTableEntries(header.size, granularityBits, clusterSize)
  const fits = tableSize > 0 && tableSize * clusterSize <= LIMIT.bitmapSize
  if (!fits || (!inUse && tableSize !== needed) || tableOffset === 0) {
    const message = () => `bitmap table of ${tableSize} entries, ${needed} are needed`
    findings.refuse(CODE, structure, message, tableOffset)
    return
  }
  if (!tables.claim(structure, tableOffset, tableSize * 8)) return
  for await (const [start, piece] of budget.pieces(tableOffset, tableSize * 8)) {
    for (let at = 0; at < piece.byteLength; at += 8) {
      const hi = piece.getUint32(at)
      const lo = piece.getUint32(at + 4)
      const offset = entryOffset(hi, lo)
      const place = tableOffset + start + at
      if ((hi & 0xff000000) !== 0 || (lo & 0x1fe) !== 0 || (offset !== 0 && (lo & 1) !== 0)) {
        const message = () => `bitmap table entry at ${hex(place)} has reserved bits set`
        findings.refuse('RESERVED_BITS', structure, message, place)
      } else if (offset !== 0) tables.claim('bitmap data', offset, clusterSize)
    }
  }
}
