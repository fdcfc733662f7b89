/** Opens the images that steps work on, by their paths in the journal, and looks at their records without opening them. */

import { ImageError } from '../base/errors.ts'
import { statOf } from '../chain/index.ts'
import { type Header, looksLikeQcow2, Qcow2Image, readHeader } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import { decodeRecord, type LayerRecord, recordOf } from './record.ts'
import type { StepWorld } from './steps.ts'

/** Does `work` with an image open for writing, by itself: what it stands on is not opened. */
export async function withImage<T>(
  { catalogue, locks }: StepWorld,
  path: string,
  work: (image: Qcow2Image) => Promise<T>,
): Promise<T> {
  const { files } = catalogue
  const absolute = await catalogue.toAbsolute(path)
  const lock = { kind: 'write', group: locks } as const
  const file = await FileDevice.open(files, absolute, { writable: true, growable: true, lock })
  let image: Qcow2Image
  try {
    image = await Qcow2Image.open(file, { writable: true, name: absolute })
  } catch (error) {
    await file.close()
    throw error
  }
  try {
    return await work(image)
  } finally {
    await image.close()
  }
}

/** The header of the image at `path`; undefined where nothing is there, or no whole image. */
export async function headerAt(
  { catalogue }: Pick<StepWorld, 'catalogue'>,
  path: string,
): Promise<Header | undefined> {
  const { files } = catalogue
  const absolute = await catalogue.toAbsolute(path)
  if ((await statOf(files, absolute)) === undefined) return undefined
  await using file = await FileDevice.open(files, absolute)
  const first = new Uint8Array(Math.min(8, file.size))
  await file.read(0, first)
  if (!looksLikeQcow2(first)) return undefined
  try {
    return (await readHeader(file)).header
  } catch (error) {
    // A host that fails says nothing about the image: whoever asks must not take it for none.
    if (error instanceof ImageError) return undefined
    throw error
  }
}

/** The record of the image at `path`, if there is one. */
export async function recordAt(
  world: Pick<StepWorld, 'catalogue'>,
  path: string,
): Promise<LayerRecord | undefined> {
  const header = await headerAt(world, path)
  return header === undefined ? undefined : recordOf(header.extensions)
}

/** A record as a step has it. */
export function recordFromHex(text: string | null): LayerRecord | undefined {
  return text === null ? undefined : decodeRecord(Buffer.from(text, 'hex'))
}
