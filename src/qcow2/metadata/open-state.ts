/** Opens an image: reads and checks what every use needs, and, before the first write, what writers need. */

import { ImageError, UsageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { INCOMPATIBLE, LIMIT, SECTOR_SIZE } from '../layout/constants.ts'
import {
  type Header,
  hasIncompatible,
  headerClusterSize,
  headerGeometry,
  parseHeader,
} from '../layout/header.ts'
import {
  parseSnapshotTable,
  type SnapshotRecord,
  type SnapshotTable,
  snapshotEntryLength,
} from '../layout/snapshot-table.ts'
import { HostFile, outsideFile } from './host-file.ts'
import { markMetadata } from './overlap.ts'
import { RefcountStore } from './refcount-store.ts'
import { Qcow2State } from './state.ts'

/** How an image is opened; see `OpenOptions` of image.ts. */
export interface OpenStateOptions {
  readonly writable: boolean
  readonly name: string
  readonly dataFile: BlockDevice | undefined
  readonly tableBudget: number
  readonly punch: boolean
}

const PROBE = 4096

/** Reads the header of the image in `file`. */
export async function readHeader(
  file: BlockDevice,
): Promise<{ header: Header; sector: Uint8Array }> {
  const first = new Uint8Array(Math.min(PROBE, file.size))
  await file.read(0, first)
  const clusterSize = headerClusterSize(first)
  let cluster = first
  if (clusterSize > first.length && file.size > first.length) {
    // Extensions and backing name can lie anywhere in the first cluster.
    cluster = new Uint8Array(Math.min(clusterSize, file.size))
    await file.read(0, cluster)
  }
  const sector = new Uint8Array(SECTOR_SIZE)
  sector.set(cluster.subarray(0, SECTOR_SIZE))
  return { header: parseHeader(cluster.subarray(0, clusterSize)), sector }
}

/** Reads everything that a reader needs, and checks that every table lies inside the file. */
export async function openState(file: BlockDevice, options: OpenStateOptions): Promise<Qcow2State> {
  const { header, sector } = await readHeader(file)
  const host = new HostFile(file)
  const within = (structure: string, offset: number, length: number) => {
    if (offset + length > file.size) throw outsideFile(structure, offset, file.size)
  }
  within('L1 table', header.l1TableOffset, header.l1Size * 8)
  if (options.writable) checkWritable(header)
  const table = await readSnapshotTable(file, header)
  for (const snapshot of table.records) {
    const { l1TableOffset, l1Size } = snapshot
    if (l1Size * 8 > LIMIT.l1Size) {
      throw new ImageError(
        'L1_TABLE',
        `L1 table of snapshot ${snapshot.id} is larger than 32 MiB`,
        {
          context: { structure: 'snapshot table', snapshot: snapshot.id },
        },
      )
    }
    if (l1TableOffset % 2 ** header.clusterBits !== 0) {
      throw new ImageError(
        'TABLE_UNALIGNED',
        `L1 table offset 0x${l1TableOffset.toString(16)} of snapshot ${snapshot.id} is not aligned to a cluster`,
        { context: { structure: 'snapshot table', snapshot: snapshot.id, offset: l1TableOffset } },
      )
    }
  }
  const external = hasIncompatible(header, INCOMPATIBLE.dataFile)
  const dataFile = options.dataFile === undefined ? undefined : new HostFile(options.dataFile)
  return new Qcow2State({
    name: options.name,
    host,
    data: external ? dataFile : host,
    header,
    headerSector: sector,
    geometry: headerGeometry(header),
    writable: options.writable,
    tableBudget: options.tableBudget,
    punch: options.punch,
    snapshots: table.records,
    snapshotTableLength: table.length,
  })
}

function checkWritable(header: Header): void {
  if (hasIncompatible(header, INCOMPATIBLE.corrupt)) {
    throw new ImageError(
      'IMAGE_CORRUPT',
      'image is marked corrupt and can be opened for reading only',
      {
        context: { structure: 'header' },
      },
    )
  }
  if (header.refcountTableClusters === 0) {
    throw new ImageError('REFCOUNT_TABLE', 'image has no refcount table', {
      context: { structure: 'header' },
    })
  }
}

/**
 * The internal snapshots of an image whose header is known; nothing else of it is looked at. Takes memory for the table, which
 * ends at 64 MiB.
 */
export async function readSnapshots(
  file: BlockDevice,
  header: Header,
): Promise<readonly SnapshotRecord[]> {
  return (await readSnapshotTable(file, header)).records
}

/** Reads the snapshot table; its length shows only as its entries are read. */
async function readSnapshotTable(file: BlockDevice, header: Header): Promise<SnapshotTable> {
  if (header.snapshotCount === 0) return { records: [], length: 0 }
  const offset = header.snapshotsOffset
  if (offset >= file.size) throw outsideFile('snapshot table', offset, file.size)
  const available = Math.min(file.size - offset, LIMIT.snapshotTableSize)
  for (let size = Math.min(available, 65536); ; size = Math.min(available, size * 4)) {
    const bytes = new Uint8Array(size)
    await file.read(offset, bytes)
    if (size === available || holdsEntries(bytes, header.snapshotCount)) {
      return parseSnapshotTable(bytes, header.snapshotCount)
    }
  }
}

function holdsEntries(bytes: Uint8Array, count: number): boolean {
  let at = 0
  for (let index = 0; index < count; index++) {
    const length = snapshotEntryLength(bytes, at)
    if (length === undefined) return false
    at += length
  }
  return at <= bytes.length
}

/** Reads what writing needs, the first time; the caller holds the mutex. */
export async function ensureWriter(state: Qcow2State): Promise<void> {
  if (state.writer !== undefined) return
  if (!state.writable) throw new UsageError('READ_ONLY', 'image is open for reading only')
  await state.checkUnchanged()
  const { header, host, geometry } = state
  const { refcountTableOffset: offset, refcountTableClusters: clusterCount } = header
  const bytes = new Uint8Array(clusterCount * geometry.clusterSize)
  if (offset >= host.size) throw outsideFile('refcount table', offset, host.size)
  await host.read(offset, bytes)
  const budget = Math.max(1024 * 1024, 4 * geometry.clusterSize)
  state.startWriting(new RefcountStore(host, geometry, { offset, clusterCount }, bytes, budget))
  try {
    await markMetadata(state)
  } catch (error) {
    state.writer = undefined
    throw error
  }
}
