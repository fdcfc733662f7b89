/** The header cluster of an image, read by the simulator's own few lines, so that it does not share the engine's mistakes. */

import { SECTOR_SIZE } from './sector.ts'

/** What the simulator needs of a header. */
export interface ParsedHeader {
  readonly version: number
  readonly clusterBits: number
  readonly size: number
  readonly l1Size: number
  readonly l1Offset: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly snapshotCount: number
  readonly snapshotsOffset: number
  readonly isDirty: boolean
  readonly isCorrupt: boolean
  readonly externalData: boolean
  readonly extendedL2: boolean
  readonly zstd: boolean
  readonly refcountBits: number
  readonly lazy: boolean
  readonly backing: { readonly name: string; readonly format: string | undefined } | undefined
  readonly dataFile: string | undefined
  /** Set only where the autoclear bit says that it holds. */
  readonly bitmaps:
    | { readonly count: number; readonly size: number; readonly offset: number }
    | undefined
  /** What of it could still be read as what somebody set, for a comparison of headers. */
  readonly identity: string
}

/** The header, or why there is none. */
export type HeaderResult =
  | { readonly ok: true; readonly header: ParsedHeader }
  | { readonly ok: false; readonly reason: string }

const decoder = new TextDecoder('latin1')

/** Parses the first bytes of a file (at least a sector, at most a cluster). */
export function parseHeader(bytes: Uint8Array): HeaderResult {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u32 = (at: number) => view.getUint32(at)
  const u64 = (at: number) => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
  const bad = (reason: string): HeaderResult => ({ ok: false, reason })
  if (bytes.length < SECTOR_SIZE || u32(0) !== 0x514649fb) return bad('no magic')
  const version = u32(4)
  if (version !== 2 && version !== 3) return bad('unknown version')
  const clusterBits = u32(20)
  if (clusterBits < 9 || clusterBits > 21) return bad('cluster size')
  const modern = version === 3
  const incompatible = modern ? u32(76) : 0
  if (modern && (u32(72) !== 0 || incompatible > 31)) return bad('unknown incompatible feature')
  const headerLength = modern ? u32(100) : 72
  if (modern && (headerLength < 104 || headerLength > 2 ** clusterBits)) return bad('header length')
  const extensions = parseExtensions(bytes, headerLength, u64(8))
  if (typeof extensions === 'string') return bad(extensions)
  const nameOffset = u64(8)
  const nameSize = u32(16)
  if (nameOffset + nameSize > bytes.length || nameSize > 1023) return bad('backing name')
  const name =
    nameOffset === 0 ? '' : decoder.decode(bytes.subarray(nameOffset, nameOffset + nameSize))
  const text = (type: number) => {
    const found = extensions.get(type)
    return found === undefined ? undefined : decoder.decode(found)
  }
  const isConsistent = modern && (u32(92) & 1) === 1
  const refcountBits = modern ? 2 ** u32(96) : 16
  if (refcountBits > 64) return bad('refcount width')
  const header = {
    version,
    clusterBits,
    size: u64(24),
    l1Size: u32(36),
    l1Offset: u64(40),
    refcountTableOffset: u64(48),
    refcountTableClusters: u32(56),
    snapshotCount: u32(60),
    snapshotsOffset: u64(64),
    isDirty: (incompatible & 1) !== 0,
    isCorrupt: (incompatible & 2) !== 0,
    externalData: (incompatible & 4) !== 0,
    zstd: (incompatible & 8) !== 0 && bytes[104] === 1,
    extendedL2: (incompatible & 16) !== 0,
    refcountBits,
    lazy: modern && (u32(84) & 1) === 1,
    backing: name === '' ? undefined : { name, format: text(0xe2792aca) },
    dataFile: text(0x44415441),
    bitmaps: isConsistent ? bitmapsOf(extensions.get(0x23852875)) : undefined,
  }
  const { lazy, backing, dataFile, size, isDirty } = header
  const identity = JSON.stringify({ version, size, refcountBits, lazy, backing, dataFile, isDirty })
  return { ok: true, header: { ...header, identity } }
}

function parseExtensions(
  bytes: Uint8Array,
  start: number,
  nameOffset: number,
): Map<number, Uint8Array> | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = new Map<number, Uint8Array>()
  const end = nameOffset === 0 ? bytes.length : nameOffset
  for (let at = start; at + 8 <= end; ) {
    const type = view.getUint32(at)
    const length = view.getUint32(at + 4)
    if (type === 0) return found
    if (at + 8 + length > end) return 'header extension'
    found.set(type, bytes.subarray(at + 8, at + 8 + length))
    at += 8 + Math.ceil(length / 8) * 8
  }
  return found
}

function bitmapsOf(data: Uint8Array | undefined): ParsedHeader['bitmaps'] {
  if (data === undefined || data.length < 24) return undefined
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const u64 = (at: number) => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
  return { count: view.getUint32(0), size: u64(8), offset: u64(16) }
}
