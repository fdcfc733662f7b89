/**
 * Gives the active disk an L2 table of its own before an entry in it changes: a new one where there is none,
 * a copy where a snapshot shares it. New tables are named by the L1 table on disk only at the commit (O5).
 */

import { HI_COPIED } from '../layout/constants.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { type EntryPlace, locate } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import type { TableSlice } from '../metadata/table-cache.ts'

/** The slice that holds an entry, ready to be changed before anything else is awaited. */
export interface PrivateEntry extends EntryPlace {
  readonly slice: TableSlice
}

/** Finds the entry of `guestOffset` in a table that only the active disk refers to. The caller holds the mutex. */
export async function privateEntry(
  state: Qcow2State,
  l1: L1Table,
  guestOffset: number,
): Promise<PrivateEntry> {
  let place = locate(state, l1, guestOffset)
  if (place.sliceOffset === 0 || !l1.copied(place.l1Index)) {
    const old = l1.offset(place.l1Index)
    const fresh = await newTable(state, old)
    l1.set(place.l1Index, fresh, true)
    state.dirtyL1.add(Math.floor(place.l1Index / 64))
    if (old !== 0) state.quarantine.add(old / state.geometry.clusterSize, 1)
    place = locate(state, l1, guestOffset)
  }
  for (;;) {
    const slice = state.tables.peek(place.sliceOffset)
    if (slice !== undefined) return { ...place, slice }
    await state.tables.load(place.sliceOffset)
  }
}

/** As `privateEntry`, where nothing must be made or loaded for it; else undefined, and nothing has changed. */
export function residentEntry(
  state: Qcow2State,
  l1: L1Table,
  guestOffset: number,
): PrivateEntry | undefined {
  const { l1Index, sliceOffset, index } = locate(state, l1, guestOffset)
  if (sliceOffset === 0 || !l1.copied(l1Index)) return undefined
  const slice = state.tables.peek(sliceOffset)
  return slice === undefined ? undefined : { l1Index, sliceOffset, index, slice }
}

/** Takes a cluster and fills it with a copy of the table at `old`, or with nothing. */
async function newTable(state: Qcow2State, old: number): Promise<number> {
  const { tables, geometry, host, metadata } = state
  const { clusterSize } = geometry
  const bytes = new Uint8Array(clusterSize)
  if (old !== 0) {
    await host.readWithin(old, bytes, 'L2 table')
    clearCopied(bytes, geometry.l2EntrySize)
  }
  const { offset } = await state.writing.allocator.take(1)
  if (clusterSize <= tables.sliceSize) {
    tables.create(offset).bytes.set(bytes)
  } else {
    await host.write(offset, bytes, 'metadata')
    for (let at = 0; at < clusterSize; at += tables.sliceSize) tables.drop(offset + at)
  }
  state.newTables.add(offset)
  metadata.add(offset / clusterSize)
  return offset
}

/** Clears the copied flag of every entry: what a shared table refers to is shared too. */
export function clearCopied(table: Uint8Array, entrySize: number): boolean {
  let changed = false
  for (let at = 0; at < table.length; at += entrySize) {
    const top = table[at] as number
    if ((top & (HI_COPIED >>> 24)) === 0) continue
    table[at] = top & ~(HI_COPIED >>> 24)
    changed = true
  }
  return changed
}
