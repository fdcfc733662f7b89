/**
 * Whether clusters that nothing refers to are waste, or data whose last reference was destroyed. A wrong "leaked" costs the
 * data, a wrong "in use" costs space: so whatever looks like a lost table, or like too much, is kept.
 */

import { breathe } from '../base/breathe.ts'
import { PAGE_CLUSTERS } from './cluster-counts.ts'
import type { ImageParts } from './image-parts.ts'
import { HI_COMPRESSED } from './layout/constants.ts'
import { compressedOffset, entryOffset, l2Reserved } from './layout/entries.ts'
import { lostReference, type RepairSurvey } from './repair-survey.ts'

/** Why leaked clusters are not freed. */
export interface Suspicion {
  /** Stable, in SCREAMING_SNAKE. */
  readonly code: 'LOST_REFERENCE' | 'MANY_LEAKS' | 'EMPTY_L1_ENTRY' | 'ORPHANED_TABLE'
  readonly message: string
}

/** So many leaked clusters are nothing, however small the image is. */
const FEW = 16
/** More leaked clusters than this part of those in use are not freed. */
const SHARE = 0.1
/** The same where the L1 table has an entry of zero within the disk, which may be what is missing. */
const SHARE_WITH_GAP = 0.01

/** What speaks against freeing the leaked clusters; undefined where nothing does. */
export async function suspectLeaks(
  parts: ImageParts,
  survey: RepairSurvey,
  signal: AbortSignal | undefined,
): Promise<Suspicion | undefined> {
  const { leaked, usedCount } = unreferenced(survey)
  if (survey.compared.leaks === 0) return undefined
  const lost = lostReference(survey)
  if (lost !== undefined) {
    return {
      code: 'LOST_REFERENCE',
      message: `leaked clusters may be what a damaged reference led to (${lost.message})`,
    }
  }
  const many = (share: number) => leaked.length > Math.max(FEW, usedCount * share)
  const amount = `${leaked.length} leaked clusters beside ${usedCount} in use`
  if (many(SHARE)) {
    return { code: 'MANY_LEAKS', message: `${amount} are more than a leak leaves behind` }
  }
  if (many(SHARE_WITH_GAP) && hasGap(parts)) {
    return {
      code: 'EMPTY_L1_ENTRY',
      message: `${amount} may belong to an L1 entry that is zero`,
    }
  }
  const table = await findTable(parts, survey, leaked, signal)
  if (table === undefined) return undefined
  const offset = (table * parts.geometry.clusterSize).toString(16)
  return {
    code: 'ORPHANED_TABLE',
    message: `leaked cluster at 0x${offset} looks like a table whose reference was lost`,
  }
}

/** Clusters in use by their refcount that nothing refers to, in order, and how many something refers to. */
function unreferenced({ counts, stored }: RepairSurvey): { leaked: number[]; usedCount: number } {
  const leaked: number[] = []
  let usedCount = 0
  for (let index = 0; index * PAGE_CLUSTERS < stored.clusterCount; index++) {
    const refcounts = stored.existingPage(index)
    const references = counts.existingPage(index)
    for (let at = 0; at < PAGE_CLUSTERS; at++) {
      if ((references?.[at] ?? 0) !== 0) usedCount++
      else if ((refcounts?.[at] ?? 0) !== 0) leaked.push(index * PAGE_CLUSTERS + at)
    }
  }
  return { leaked, usedCount }
}

function hasGap({ l1Table }: ImageParts): boolean {
  const view = new DataView(l1Table.buffer, l1Table.byteOffset, l1Table.byteLength)
  for (let at = 0; at < view.byteLength; at += 8) {
    if ((view.getUint32(at) | view.getUint32(at + 4)) === 0) return true
  }
  return false
}

/** The first leaked cluster that by its looks is a table of clusters which lost a reference. */
async function findTable(
  parts: ImageParts,
  { counts, stored }: RepairSurvey,
  leaked: readonly number[],
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const { clusterSize } = parts.geometry
  // A lost table of a snapshot names clusters that others refer to as well.
  const hasLost = (cluster: number) => stored.get(cluster) > counts.get(cluster)
  const bytes = new Uint8Array(clusterSize)
  for (const cluster of leaked) {
    await parts.host.read(cluster * clusterSize, bytes)
    if (looksLikeTable(parts, bytes, hasLost)) return cluster
    await breathe(signal)
  }
  return undefined
}

/** Whether every entry is one that a table can have, and most of what it names lost a reference. */
function looksLikeTable(
  { geometry, fileLength }: ImageParts,
  bytes: Uint8Array,
  hasLost: (cluster: number) => boolean,
): boolean {
  const { clusterSize, extendedL2, l2EntrySize } = geometry
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let named = 0
  let namedLost = 0
  for (let at = 0; at < view.byteLength; at += l2EntrySize) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    let offset = entryOffset(hi, lo)
    if ((hi & HI_COMPRESSED) !== 0) {
      offset = compressedOffset(hi, lo, geometry)
    } else if (l2Reserved(hi, lo, extendedL2) || offset % clusterSize !== 0) {
      return false
    }
    if (offset === 0) continue
    if (offset >= fileLength) return false
    named++
    if (hasLost(Math.floor(offset / clusterSize))) namedLost++
  }
  return namedLost > 0 && namedLost * 2 >= named
}
