/** Changes traces: leaves out a flush, moves an entry; what refers to positions is kept true. */

import type { NameEntry, Trace, TraceEntry } from './trace.ts'

/** The positions at which flushes begin. */
export function flushesOf(trace: Trace): number[] {
  return trace.entries.flatMap(({ op }, at) => (op === 'flush' ? [at] : []))
}

/** The position of the first write of header sector 0; throws where there is none. */
export function headerWriteOf(trace: Trace): number {
  return found(
    trace.entries.findIndex((entry) => entry.op === 'write' && entry.offset === 0),
    'write of a header',
  )
}

/** The position of a change of names; throws where there is none. */
export function nameChangeOf(trace: Trace, kind: NameEntry['kind']): number {
  return found(
    trace.entries.findIndex((entry) => entry.op === 'name' && entry.kind === kind),
    kind,
  )
}

/** Leaves out the flush (or folder sync) that begins at `position`. */
export function drop(trace: Trace, position: number | undefined): Trace {
  const begin = trace.entries[position ?? -1]
  if (begin?.op !== 'flush' && begin?.op !== 'sync-folder') throw new RangeError('no such flush')
  const entries = trace.entries.map((entry, at): TraceEntry => {
    const ends =
      (entry.op === 'flushed' || entry.op === 'folder-synced') && entry.start === position
    return at === position || ends ? { op: 'mark', name: 'flush left out' } : entry
  })
  return { ...trace, entries }
}

/** Moves the entry at `from` to before the one at `to`. */
export function move(trace: Trace, from: number, to: number): Trace {
  const order = trace.entries.map((_, at) => at)
  order.splice(from, 1)
  order.splice(to > from ? to - 1 : to, 0, from)
  const place = new Map(order.map((old, now) => [old, now]))
  const entries = order.map((old): TraceEntry => {
    const entry = trace.entries[old] as TraceEntry
    if (entry.op === 'flushed' || entry.op === 'folder-synced') {
      return { ...entry, start: place.get(entry.start) ?? entry.start }
    }
    if (entry.op !== 'write' || entry.done === undefined) return entry
    return { ...entry, done: place.get(entry.done) ?? entry.done }
  })
  return { ...trace, entries }
}

function found(position: number, what: string): number {
  if (position < 0) throw new RangeError(`trace has no ${what}`)
  return position
}
