/**
 * What tests can claim of disk images, for `expect.extend` of vitest or jest. Each matcher is asynchronous; a message of a claim
 * that fails shows the tree of files.
 */

import { basename } from 'node:path'
import { formatSize } from '../base/units.ts'
import { type BlockDevice, compare } from '../block/index.ts'
import { diffViews, openChain } from '../chain/index.ts'
import { checkImage } from '../qcow2/index.ts'
import { MemoryDevice } from '../storage/index.ts'
import { type Fill, parseFills } from './chain-text.ts'
import { nameOf, openView, treeOf, type ViewName } from './views.ts'

/** What a matcher answers to vitest or jest. */
export interface MatcherResult {
  readonly pass: boolean
  readonly message: () => string
}

/** Bytes from the beginning of the disk, fills (`0+64k=0x11, 1M+4k=0x22`; zeroes elsewhere), or another view. */
export type ExpectedContent = string | Uint8Array | { readonly view: ViewName }

/** A claim: what was found, said once for when it should have been and once for when it should not. */
async function claim(
  view: ViewName,
  pass: boolean,
  messages: { readonly not: string; readonly but: string },
): Promise<MatcherResult> {
  const text = (pass ? messages.not : messages.but) + (await treeOf(view))
  return { pass, message: () => text }
}

/** The disk reads as expected, from its first byte to its last; past the end of shorter bytes it holds zeroes. */
export async function toReadAs(view: ViewName, expected: ExpectedContent): Promise<MatcherResult> {
  await using opened = await openView(view)
  await using other = await contentOf(expected, opened.device.size)
  const result = await compare(opened.device, other.device)
  const what = other.text
  if (result.identical) {
    return claim(view, true, { not: `expected ${nameOf(view)} not to read as ${what}`, but: '' })
  }
  const { offset } = result
  const [found, wanted] = await Promise.all([
    byteAt(opened.device, offset),
    byteAt(other.device, offset),
  ])
  const place = `0x${offset.toString(16)}: ${found} instead of ${wanted}`
  return claim(view, false, {
    not: '',
    but: `expected ${nameOf(view)} to read as ${what}, it differs at ${place}`,
  })
}

interface Content extends AsyncDisposable {
  readonly device: BlockDevice
  readonly text: string
}

async function contentOf(expected: ExpectedContent, size: number): Promise<Content> {
  if (typeof expected === 'object' && 'view' in expected) {
    const opened = await openView(expected.view)
    const close = async (): Promise<void> => {
      await opened[Symbol.asyncDispose]()
    }
    return { device: opened.device, text: nameOf(expected.view), [Symbol.asyncDispose]: close }
  }
  const device =
    typeof expected === 'string'
      ? await filled(parseFills(expected), size)
      : MemoryDevice.from(expected)
  const text = typeof expected === 'string' ? `'${expected}'` : `${expected.length} bytes`
  return { device, text, [Symbol.asyncDispose]: () => device.close() }
}

/** Fills in memory; those that say zero or discard are what is not there. */
async function filled(fills: readonly Fill[], size: number): Promise<BlockDevice> {
  const device = new MemoryDevice(size)
  for (const { offset, length, value } of fills) {
    if (typeof value !== 'number') await device.discard(offset, length)
    else await device.write(offset, new Uint8Array(length).fill(value))
  }
  return device
}

async function byteAt(device: BlockDevice, offset: number): Promise<string> {
  if (offset >= device.size) return 'the end'
  const byte = new Uint8Array(1)
  await device.read(offset, byte)
  return `0x${(byte[0] as number).toString(16).padStart(2, '0')}`
}

/** The image and all below it have neither errors nor leaked clusters. */
export async function toBeCleanImage(image: string): Promise<MatcherResult> {
  const complaints: string[] = []
  await using chain = await openChain(image)
  for (const { image: layer, file, filename } of chain.layers) {
    if (layer === undefined) continue
    const { corruptions, leaks, checkErrors } = await checkImage(file)
    if (corruptions + leaks + checkErrors === 0) continue
    const counts = `${corruptions} errors, ${leaks} leaked clusters, ${checkErrors} failures`
    complaints.push(`${basename(filename)} has ${counts}`)
  }
  return claim(image, complaints.length === 0, {
    not: `expected ${image} not to be clean`,
    but: `expected ${image} to be clean, but ${complaints.join('; ')}`,
  })
}

/** Below the image stand files of these names, the next one first; `[]` for nothing. */
export async function toHaveBackingChain(
  image: string,
  names: readonly string[],
): Promise<MatcherResult> {
  await using chain = await openChain(image)
  const found = chain.layers.slice(1).map(({ path }) => basename(path))
  const wanted = names.map((name) => basename(name))
  const shown = (list: readonly string[]): string =>
    list.length === 0 ? 'nothing' : list.join(' <- ')
  return claim(image, found.join('/') === wanted.join('/'), {
    not: `expected ${image} not to stand on ${shown(wanted)}`,
    but: `expected ${image} to stand on ${shown(wanted)}, it stands on ${shown(found)}`,
  })
}

/**
 * Data that both views have at the same place of the disk lies in the same clusters of the same file, at least so many bytes of it
 * (any at all where left out).
 */
export async function toShareClustersWith(
  view: ViewName,
  other: ViewName,
  { atLeast = 1 }: { readonly atLeast?: number } = {},
): Promise<MatcherResult> {
  await using a = await openView(view)
  await using b = await openView(other)
  let shared = await dataBytes(a.device, 0, a.device.size)
  for await (const changes of diffViews(a, b)) {
    for (const { offset, length } of changes) {
      const end = Math.min(offset + length, a.device.size)
      if (end > offset) shared -= await dataBytes(a.device, offset, end - offset)
    }
  }
  const both = `${nameOf(view)} and ${nameOf(other)}`
  return claim(view, shared >= atLeast, {
    not: `expected ${both} not to share ${formatSize(atLeast)}, they share ${formatSize(shared)}`,
    but: `expected ${both} to share at least ${formatSize(atLeast)}, they share ${formatSize(shared)}`,
  })
}

async function dataBytes(device: BlockDevice, offset: number, length: number): Promise<number> {
  let sum = 0
  const end = offset + length
  for (let at = offset; at < end; ) {
    for (const extent of await device.extents(at, end - at)) {
      if (extent.kind === 'data') sum += extent.length
      at = extent.offset + extent.length
    }
  }
  return sum
}
