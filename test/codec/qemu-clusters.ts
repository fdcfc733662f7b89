/**
 * Compressed clusters as QEMU writes them: makes an image with qemu-img and cuts its packed
 * clusters out.
 */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { CodecName } from '../../src/codec/index.ts'

const CLUSTER_BITS = 16

export interface PackedCluster {
  /** The number of the guest cluster. */
  readonly index: number
  /** Where its packed bytes begin in the image. */
  readonly offset: number
  /** Its packed bytes up to the end of their last sector. */
  readonly packed: Uint8Array
}

/**
 * Converts the raw disk at `source` to a compressed image at `target`; the disk must be small
 * enough for one L2 table.
 */
export function qemuClusters(source: string, target: string, codec: CodecName): PackedCluster[] {
  const options = `compression_type=${codec}`
  execFileSync('qemu-img', ['convert', '-c', '-O', 'qcow2', '-o', options, source, target])
  const image = readFileSync(target)
  const l1 = Number(image.readBigUInt64BE(40))
  const l2 = Number(image.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n)
  const width = BigInt(62 - (CLUSTER_BITS - 8))
  const clusters: PackedCluster[] = []
  const clusterCount = Number(image.readBigUInt64BE(24)) / 2 ** CLUSTER_BITS
  for (let index = 0; index < clusterCount; index++) {
    const entry = image.readBigUInt64BE(l2 + index * 8)
    if (entry >> 62n !== 1n) continue
    const offset = Number(entry & ((1n << width) - 1n))
    const sectors = Number((entry >> width) & ((1n << (62n - width)) - 1n)) + 1
    const end = (Math.floor(offset / 512) + sectors) * 512
    clusters.push({ index, offset, packed: image.subarray(offset, end) })
  }
  return clusters
}
