/** Steps that the tests of bitmaps share: images with bitmaps from qemu-img, and what qemu and we see in them. */

import { join } from 'node:path'
import { expect } from 'vitest'
import { BitmapSession } from '../../src/qcow2/metadata/bitmap-session.ts'
import { dirtyRanges, loadDirectory } from '../../src/qcow2/metadata/bitmap-store.ts'
import { qemuImg, qemuImgOk, qemuNbd } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import type { BitmapImage } from './bitmap-image.ts'

export const KIB = 1024
export const MIB = 1024 ** 2
export const GIB = 1024 ** 3
export const TIB = 1024 ** 4

/** An image with bitmaps, to be made by qemu-img. */
export interface Wish {
  readonly size: number | string
  readonly clusterSize?: number
  readonly bitmaps: readonly {
    readonly name: string
    readonly granularity?: number
    readonly disabled?: boolean
  }[]
}

/** An image made by qemu-img, with bitmaps. */
export async function makeImage({ size, clusterSize, bitmaps }: Wish): Promise<string> {
  const path = join(tempFolder(), 'disk.qcow2')
  const options = `cluster_size=${clusterSize ?? 65536}`
  await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', options, path, String(size)])
  for (const { name, granularity, disabled } of bitmaps) {
    const args = ['bitmap', '--add', '-g', String(granularity ?? 65536)]
    await qemuImgOk([...args, ...(disabled === true ? ['--disable'] : []), path, name])
  }
  return path
}

/** Dirty ranges, ascending. */
export type Ranges = { offset: number; length: number }[]

/** The dirty ranges as qemu serves them. */
export async function rangesByQemu(path: string, name: string): Promise<Ranges> {
  const socket = join(tempFolder(), 's')
  await using _server = await qemuNbd(socket, ['-r', '-f', 'qcow2', '-B', name, path])
  const options = `driver=nbd,server.type=unix,server.path=${socket},x-dirty-bitmap=qemu:dirty-bitmap:${name}`
  const runs = JSON.parse(await qemuImgOk(['map', '--output=json', '--image-opts', options])) as {
    start: number
    length: number
    data: boolean
  }[]
  // That option makes qemu show a dirty range as one without data.
  return joined(
    runs.filter(({ data }) => !data).map(({ start, length }) => ({ offset: start, length })),
  )
}

/** The dirty ranges as we read them. */
export async function rangesByUs(image: BitmapImage, name: string): Promise<Ranges> {
  const { directory, size } = image.source
  const { records } = await loadDirectory(image, directory, size)
  const record = records.find((item) => item.name === name)
  if (record === undefined) throw new Error(`no bitmap ${name}`)
  const found: Ranges = []
  for await (const batch of dirtyRanges(image, record, size)) found.push(...batch)
  return joined(found)
}

function joined(ranges: Ranges): Ranges {
  const list: Ranges = []
  for (const { offset, length } of ranges) {
    const last = list.at(-1)
    if (last !== undefined && last.offset + last.length === offset) last.length += length
    else list.push({ offset, length })
  }
  return list
}

/** What `qemu-img info` says about the bitmaps: name and flags. */
export async function infoOf(path: string): Promise<Record<string, string[]>> {
  const info = JSON.parse(await qemuImgOk(['info', '--output=json', path]))
  const bitmaps: { name: string; flags: string[] }[] = info['format-specific'].data.bitmaps ?? []
  return Object.fromEntries(bitmaps.map(({ name, flags }) => [name, flags]))
}

/** Fails unless `qemu-img check` finds nothing. */
export async function expectClean(path: string): Promise<void> {
  const result = await qemuImg(['check', path])
  expect(result.stdout).toMatch(/^No errors/)
  expect(result.status).toBe(0)
}

/** One session from mark to store in which `ranges` are written. */
export async function runSession(image: BitmapImage, ranges: Ranges): Promise<void> {
  const session = await BitmapSession.open(image, image.source)
  await session.markInUse()
  for (const { offset, length } of ranges) session.record(offset, length)
  await session.store()
}
