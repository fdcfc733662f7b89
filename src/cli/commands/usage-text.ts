/** How `usage` looks: a bar with its legend, the snapshots, what is shared; and the same as JSON. */

import { formatSize } from '../../base/units.ts'
import type { Compaction, Usage } from '../../qcow2/index.ts'

/** What is shown. */
export interface UsageReport {
  readonly usage: Usage
  /** What compacting would do, or why it cannot be done. */
  readonly compaction: Compaction | string
}

const BAR_WIDTH = 64
/** More kinds of sharing are summed up. */
const SHARED_LINES = 10

/** The report for people. */
export function usageLines(name: string, { usage, compaction }: UsageReport): string[] {
  const parts = shares(usage)
  const whole = parts.reduce((sum, part) => sum + part.size, 0)
  const legend = parts.map(({ sign, label, size }) => {
    const percent = whole === 0 ? 0 : (size / whole) * 100
    return `  ${sign} ${label.padEnd(26)}${formatSize(size).padStart(10)}${percent.toFixed(1).padStart(7)}%`
  })
  return [
    `${name}: ${formatSize(usage.fileSize)} (${usage.fileSize} bytes), clusters of ${formatSize(usage.clusterSize)}`,
    bar(parts, whole),
    ...legend,
    ...snapshotLines(usage),
    ...sharedLines(usage),
    compactionLine(compaction),
  ]
}

interface Share {
  readonly sign: string
  readonly label: string
  readonly size: number
}

function shares(usage: Usage): Share[] {
  const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0)
  return [
    { sign: '#', label: 'active disk only', size: usage.activeSize },
    { sign: '=', label: 'shared', size: sum(usage.shared.map((one) => one.size)) },
    {
      sign: '+',
      label: 'one snapshot only',
      size: sum(usage.snapshots.map((one) => one.exclusiveSize)),
    },
    { sign: 'm', label: 'metadata', size: sum(Object.values(usage.metadata)) },
    { sign: '!', label: 'leaked', size: usage.leakedSize },
    { sign: '.', label: 'free within the file', size: usage.freeSize },
  ]
}

/** Each part as wide as its share; what is there at all has at least one sign. */
function bar(parts: readonly Share[], whole: number): string {
  let text = ''
  let sum = 0
  for (const { sign, size } of parts) {
    sum += size
    const end = whole === 0 ? 0 : Math.round((sum / whole) * BAR_WIDTH)
    text += sign.repeat(Math.max(size > 0 ? 1 : 0, end - text.length))
  }
  return `[${text}]`
}

function snapshotLines({ snapshots }: Usage): string[] {
  if (snapshots.length === 0) return []
  const row = (id: string, tag: string, ...sizes: string[]) =>
    `${id.padEnd(9)} ${tag.padEnd(16)}${sizes.map((size) => size.padStart(14)).join('')}`
  return [
    '',
    row('ID', 'TAG', 'ITS OWN', 'SHARED', 'DELETE FREES'),
    ...snapshots.map((one) =>
      row(
        one.id,
        one.name,
        formatSize(one.exclusiveSize),
        formatSize(one.sharedSize),
        formatSize(one.freedByDelete),
      ),
    ),
  ]
}

function sharedLines({ shared, snapshots }: Usage): string[] {
  if (shared.length === 0) return []
  const lines = shared.slice(0, SHARED_LINES).map((one) => {
    const names = one.snapshots.map((index) => snapshots[index]?.name ?? '')
    const owners = [...(one.active ? ['active disk'] : []), ...names]
    return `${formatSize(one.size).padStart(10)}  ${owners.join(', ') || 'several'}`
  })
  const rest = shared.slice(SHARED_LINES)
  const restSize = rest.reduce((sum, one) => sum + one.size, 0)
  return [
    '',
    'Shared by',
    ...lines,
    ...(rest.length > 0
      ? [`${formatSize(restSize).padStart(10)}  ${rest.length} other groups`]
      : []),
  ]
}

function compactionLine(compaction: Compaction | string): string {
  if (typeof compaction === 'string') return `\nCompacting is not possible: ${compaction}`
  const { oldFileSize, fileSize, movedSize } = compaction
  const gain = oldFileSize - fileSize
  if (gain <= 0) return '\nCompacting would give nothing back.'
  return `\nCompacting would give back ${formatSize(gain)} by moving ${formatSize(movedSize)}.`
}

/** The report for programs. */
export function usageObject(name: string, { usage, compaction }: UsageReport): object {
  return {
    filename: name,
    'file-size': usage.fileSize,
    'cluster-size': usage.clusterSize,
    'active-only': usage.activeSize,
    snapshots: usage.snapshots.map((one) => ({
      id: one.id,
      name: one.name,
      'exclusive-size': one.exclusiveSize,
      'shared-size': one.sharedSize,
      'freed-by-delete': one.freedByDelete,
    })),
    shared: usage.shared.map((one) => ({
      size: one.size,
      active: one.active,
      snapshots: one.snapshots.map((index) => usage.snapshots[index]?.id),
    })),
    metadata: {
      header: usage.metadata.header,
      'l1-tables': usage.metadata.l1Tables,
      'l2-tables': usage.metadata.l2Tables,
      refcounts: usage.metadata.refcounts,
      'snapshot-table': usage.metadata.snapshotTable,
      bitmaps: usage.metadata.bitmaps,
      encryption: usage.metadata.encryption,
    },
    leaked: usage.leakedSize,
    free: usage.freeSize,
    compact:
      typeof compaction === 'string'
        ? { error: compaction }
        : {
            'gives-back': compaction.oldFileSize - compaction.fileSize,
            'file-size': compaction.fileSize,
            'moved-size': compaction.movedSize,
          },
  }
}
