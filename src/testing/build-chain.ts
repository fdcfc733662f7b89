/** Makes the files of a chain that a line of text describes (chain-text.ts). */

import { join } from 'node:path'
import { UsageError } from '../base/errors.ts'
import { MIB, parseSize } from '../base/units.ts'
import type { BlockDevice } from '../block/index.ts'
import { NewImage, openChain } from '../chain/index.ts'
import type { CreateOptions } from '../qcow2/index.ts'
import { type FileSystem, nodeFiles } from '../storage/index.ts'
import { type Fill, type LayerText, parseChainText } from './chain-text.ts'

/** Where a chain is made. */
export interface BuildOptions {
  /** A folder that is there. */
  readonly folder: string
  readonly files?: FileSystem
}

/** A chain that was made. */
export interface BuiltChain {
  /** Path of the uppermost layer. */
  readonly active: string
  /** Paths of all layers, active first. */
  readonly paths: readonly string[]
  /** The path of the layer of that name in the text. */
  path(name: string): string
}

/**
 * Makes the chain that `text` describes: layers from the base upward, separated by `<-`, each a name and words in the order in
 * which they happen. A size (`64M`), `raw`, `compressed` (what follows is stored so), `OFFSET+LENGTH=BYTE` writes, `=zero` and
 * `=discard` take away, `@NAME` takes an internal snapshot; `compat=v2`, `cluster_size=4k`, `refcount_bits=1` and `extended_l2=on`
 * shape the file. Throws a UsageError `CHAIN_TEXT` before anything is made where the text makes no sense.
 *
 *     const chain = await buildChain('base 1M 0+64k=0x11 @clean <- top 4k+4k=0x22', { folder })
 */
export async function buildChain(text: string, options: BuildOptions): Promise<BuiltChain> {
  const layers = parseChainText(text)
  const { folder, files = nodeFiles } = options
  const shapes = layers.map(shapeOf)
  let size = 0
  for (const [index, layer] of layers.entries()) {
    size = layer.size ?? size
    const below = layers[index - 1]
    const backing = below && { name: below.file, format: below.format }
    await makeLayer(layer, {
      folder,
      files,
      size,
      shape: { ...shapes[index], ...(backing && { backing }) },
    })
  }
  const paths = layers.map(({ file }) => join(folder, file)).toReversed()
  return {
    active: paths[0] as string,
    paths,
    path(name) {
      const found = layers.find((layer) => layer.name === name || layer.file === name)
      if (found === undefined) throw new UsageError('CHAIN_TEXT', `chain has no layer '${name}'`)
      return join(folder, found.file)
    },
  }
}

/** A whole number of the largest clusters, so that compressed fills stay aligned. */
const FILL_CHUNK = 2 * MIB

type Shape = Omit<CreateOptions, 'size'>

const SHAPES: Readonly<Record<string, (value: string) => Shape>> = {
  compat: (value) => ({ version: value === 'v2' || value === '0' ? 2 : 3 }),
  cluster_size: (value) => ({ clusterSize: parseSize(value) }),
  refcount_bits: (value) => ({ refcountBits: Number(value) }),
  extended_l2: (value) => ({ extendedL2: value === 'on' }),
  compression_type: (value) => ({ compressionType: value === 'zstd' ? 'zstd' : 'zlib' }),
}

function shapeOf({ name, options, format }: LayerText): Shape {
  let shape: Shape = {}
  for (const [key, value] of Object.entries(options)) {
    const read = SHAPES[key]
    if (read === undefined || format === 'raw') {
      throw new UsageError('CHAIN_TEXT', `${format} layer '${name}' takes no option '${key}'`)
    }
    shape = { ...shape, ...read(value) }
  }
  return shape
}

interface LayerPlace {
  readonly folder: string
  readonly files: FileSystem
  readonly size: number
  readonly shape: Shape
}

async function makeLayer(
  layer: LayerText,
  { folder, files, size, shape }: LayerPlace,
): Promise<void> {
  const location = join(folder, layer.file)
  const layout =
    layer.format === 'raw' ? ({ format: 'raw' } as const) : { format: layer.format, options: shape }
  {
    await using made = await NewImage.create({ location, layout, size, files })
    await made.finish()
  }
  if (layer.steps.length === 0) return
  await using chain = await openChain(location, { format: layer.format, writable: true, files })
  const { device } = chain
  const { image } = chain.active
  for (const step of layer.steps) {
    if (step.do === 'snapshot') await image?.createSnapshot({ name: step.name })
    else if (layer.compressed && image !== undefined)
      await fill(device, step.fill, (at, bytes) => image.writeCompressed(at, bytes))
    else await fill(device, step.fill, (at, bytes) => device.write(at, bytes))
  }
  await device.flush()
}

async function fill(
  device: BlockDevice,
  { offset, length, value }: Fill,
  write: (offset: number, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  if (value === 'discard') return device.discard(offset, length)
  if (value === 'zero') return device.writeZeroes(offset, length, { mayDiscard: true })
  const bytes = new Uint8Array(Math.min(length, FILL_CHUNK)).fill(value)
  for (let at = 0; at < length; at += bytes.length) {
    await write(offset + at, bytes.subarray(0, Math.min(bytes.length, length - at)))
  }
}
