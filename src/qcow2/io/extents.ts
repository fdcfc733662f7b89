/** What lies in a guest range, as any device reports it: the tables decide, and below them the backing. */

import { appendExtent, type Extent } from '../../block/index.ts'
import { type Mapping, map, resident } from '../metadata/mapping.ts'
import { PassingTables } from '../metadata/passing-tables.ts'
import type { Qcow2State } from '../metadata/state.ts'
import type { ReadView } from './read.ts'

/** At most this many runs are looked up in one call; the caller asks on from where the list ends. */
const MAXIMUM_RUNS = 1024

/** The extents from `offset` on, ascending; the list may stop short. */
export function guestExtents(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  length: number,
): Promise<Extent[]> {
  return state.quarantine.reads.run(() => listExtents(state, view, offset, length))
}

/** Where the run that starts at `offset` lies in this layer, as a read that holds up the end of its tables. */
export function guestMapping(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  length: number,
): Promise<Mapping> {
  return state.quarantine.reads.run(() => map(state, view.l1, offset, length))
}

/** The runs from `offset` on, in this layer, ascending; the list may stop short, as `extents` does. */
export function guestMappings(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  length: number,
): Promise<Mapping[]> {
  return state.quarantine.reads.run(async () => {
    const list: Mapping[] = []
    const end = offset + length
    const { geometry, version, externalData } = state
    // Whoever wants many runs goes over the whole disk.
    const passing = { geometry, version, externalData, tables: new PassingTables(state.tables) }
    for (let at = offset; at < end && list.length < MAXIMUM_RUNS; ) {
      const mapping =
        resident(passing, view.l1, at, end - at) ?? (await map(passing, view.l1, at, end - at))
      list.push(mapping)
      at += mapping.length
    }
    return list
  })
}

async function listExtents(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  length: number,
): Promise<Extent[]> {
  const list: Extent[] = []
  const end = offset + length
  let at = offset
  for (let runs = 0; at < end && runs < MAXIMUM_RUNS; runs++) {
    const mapping =
      resident(state, view.l1, at, end - at) ?? (await map(state, view.l1, at, end - at))
    if (mapping.kind === 'unallocated') {
      for (const extent of await belowExtents(state, view.size, at, mapping.length)) {
        appendExtent(list, extent)
        at = extent.offset + extent.length
      }
      continue
    }
    const kind =
      mapping.kind !== 'zero' ? 'data' : mapping.hostOffset === undefined ? 'hole' : 'zero'
    appendExtent(list, { offset: at, length: mapping.length, kind })
    at += mapping.length
  }
  return list
}

async function belowExtents(
  state: Qcow2State,
  size: number,
  offset: number,
  length: number,
): Promise<readonly Extent[]> {
  const { backing } = state
  const there = backing === undefined ? 0 : Math.min(length, backing.size - offset, size - offset)
  if (backing === undefined || there <= 0) return [{ offset, length, kind: 'hole' }]
  return backing.extents(offset, there)
}
