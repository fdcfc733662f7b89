/** The facts of one layer laid out: lines for people, and the object that is printed as JSON. */

import { formatSize } from '../../base/units.ts'
import type { SnapshotRecord } from '../../qcow2/index.ts'
import type { Fact, LayerFacts } from './info-facts.ts'
import { snapshotLines } from './snapshot-list.ts'

/** The lines for people, without line feeds. */
export function infoLines(layer: LayerFacts): string[] {
  const { actualSize, backing, clusterSize, specific } = layer
  const taken = actualSize === undefined ? 'unavailable' : formatSize(actualSize)
  const lines = [
    `image: ${layer.filename}`,
    `file format: ${layer.format}`,
    `virtual size: ${formatSize(layer.virtualSize)} (${layer.virtualSize} bytes)`,
    `disk size: ${taken}`,
  ]
  if (layer.encrypted) lines.push('encrypted: yes')
  if (clusterSize !== undefined) lines.push(`cluster_size: ${clusterSize}`)
  if (layer.dirty) lines.push('cleanly shut down: no')
  if (backing !== undefined) {
    lines.push(`backing file: ${backing.name}${actualPath(backing)}`)
    if (backing.format !== undefined) lines.push(`backing file format: ${backing.format}`)
  }
  lines.push(...snapshotLines(layer.snapshots))
  if (specific !== undefined) lines.push('Format specific information:', ...factLines(specific, 1))
  return lines
}

function actualPath({ name, fullName }: NonNullable<LayerFacts['backing']>): string {
  if (fullName === name) return ''
  return fullName === undefined ? ' (cannot determine actual path)' : ` (actual path: ${fullName})`
}

/** `name: value`, deeper levels indented; QEMU's names are shown with blanks. */
function factLines(facts: { readonly [name: string]: Fact | undefined }, level: number): string[] {
  return Object.entries(facts).flatMap(([name, value]) =>
    value === undefined ? [] : entryLines(name.replaceAll('-', ' '), value, level),
  )
}

function entryLines(name: string, value: Fact, level: number): string[] {
  const start = `${'    '.repeat(level)}${name}:`
  if (typeof value !== 'object') return [`${start} ${value}`]
  if (!isList(value)) return [start, ...factLines(value, level + 1)]
  return [start, ...value.flatMap((item, index) => entryLines(`[${index}]`, item, level + 1))]
}

function isList(value: object): value is readonly Fact[] {
  return Array.isArray(value)
}

/** The object of `--output=json`, for `prettyJson`. */
export function infoObject(layer: LayerFacts): object {
  const { backing, specific } = layer
  return {
    'backing-filename-format': backing?.format,
    snapshots: layer.snapshots.length === 0 ? undefined : layer.snapshots.map(snapshotObject),
    'virtual-size': layer.virtualSize,
    filename: layer.filename,
    'cluster-size': layer.clusterSize,
    format: layer.format,
    'actual-size': layer.actualSize,
    'format-specific': specific && { type: layer.format, data: specific },
    'full-backing-filename': backing?.fullName,
    encrypted: layer.encrypted ? true : undefined,
    'backing-filename': backing?.name,
    'dirty-flag': layer.dirty,
  }
}

const NANOSECONDS = 1_000_000_000n

function snapshotObject(snapshot: SnapshotRecord): object {
  const { icount, vmClock } = snapshot
  return {
    icount: icount === undefined ? undefined : BigInt.asIntN(64, icount),
    'vm-clock-nsec': vmClock % NANOSECONDS,
    name: snapshot.name,
    'date-sec': snapshot.date.seconds,
    'date-nsec': snapshot.date.nanoseconds,
    'vm-clock-sec': vmClock / NANOSECONDS,
    id: snapshot.id,
    'vm-state-size': snapshot.vmStateSize,
  }
}
