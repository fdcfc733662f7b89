/** Disks that have seen some use, as most workloads begin with them. */

import { open } from '../geometry.ts'
import type { WorkloadContext } from '../workload.ts'

/** Where the disk of a workload with one image lies. */
export const DISK = '/disk.qcow2'

/** A buffer full of one byte, and a little of its place. */
export function filled(length: number, byte: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(byte)
  for (let at = 0; at < length; at += 512) bytes[at] = (at >> 9) & 255
  return bytes
}

/** Writes data, zeroes and compressed clusters to an image, with snapshots in between. */
export async function wear(
  { files, geometry }: WorkloadContext,
  { snapshots = 0, path = DISK }: { snapshots?: number; path?: string } = {},
): Promise<void> {
  const image = await open(files, path)
  const { size, clusterSize } = geometry
  const unit = size / 64
  await image.write(0, filled(9 * unit, 1))
  await image.write(20 * unit, filled(5 * unit, 2))
  for (let round = 0; round < snapshots; round++) {
    await image.createSnapshot({ name: `s${round}`, date: new Date(round * 1000) })
    await image.write((2 + 3 * round) * unit, filled(2 * unit, 10 + round))
    const cluster = Math.floor(size / clusterSize) - 1 - round
    await image.writeCompressed(cluster * clusterSize, filled(clusterSize, 20 + round))
    await image.writeZeroes((21 + round) * unit, unit)
  }
  if (snapshots === 0) {
    await image.writeCompressed(size - clusterSize, filled(clusterSize, 20))
    await image.writeZeroes(21 * unit, unit)
  }
  await image.discard(24 * unit, clusterSize)
  await image.close()
}
