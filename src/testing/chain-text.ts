/**
 * Chains of images described in a line of text, for tests:
 *
 *     base 1M raw 0+64k=0x11 <- mid 64k+4k=0x22 @clean 0+4k=zero <- top compat=v2
 *
 * Layers stand from the base upward. The words of a layer are carried out in their order; building them is build-chain.ts's.
 */

import { UsageError } from '../base/errors.ts'
import { parseSize } from '../base/units.ts'

/** A range of a disk, and the byte that fills it; `zero` and `discard` are the two ways to have none. */
export interface Fill {
  readonly offset: number
  readonly length: number
  readonly value: number | 'zero' | 'discard'
}

/** What is done to a layer once it is there. */
export type LayerStep =
  | { readonly do: 'fill'; readonly fill: Fill }
  | { readonly do: 'snapshot'; readonly name: string }

/** One layer as the text describes it. */
export interface LayerText {
  /** File name; with the ending of its format where the text gave none. */
  readonly file: string
  /** The name as the text has it. */
  readonly name: string
  readonly format: 'raw' | 'qcow2'
  /** Virtual size; that of the layer below where left out. */
  readonly size: number | undefined
  readonly options: Readonly<Record<string, string>>
  readonly compressed: boolean
  readonly steps: readonly LayerStep[]
}

const NAME = /^[\w.-]+$/
const FILL = /^([^+=]+)\+([^+=]+)=(\w+)$/

/** The layers that `text` describes, base first. Throws a UsageError `CHAIN_TEXT` naming the word that makes no sense. */
export function parseChainText(text: string): readonly LayerText[] {
  const layers = text.split('<-').map((part) => parseLayer(part.trim().split(/\s+/)))
  const twice = layers.find(({ file }, at) => layers.findIndex((one) => one.file === file) < at)
  if (twice !== undefined) throw refuse(`layer '${twice.name}' is described twice`)
  if (layers[0]?.size === undefined) throw refuse('base needs a size')
  return layers
}

/** The fills that `text` lists, separated by blanks or commas: what a disk reads as, zeroes elsewhere. */
export function parseFills(text: string): readonly Fill[] {
  return text
    .split(/[\s,]+/)
    .filter((word) => word !== '')
    .map((word) => {
      const fill = parseFill(word)
      if (fill === undefined) throw refuse(`'${word}' is no OFFSET+LENGTH=BYTE`)
      return fill
    })
}

function parseLayer(words: readonly string[]): LayerText {
  const [name = '', ...rest] = words
  if (!NAME.test(name)) throw refuse(`'${name}' is no name of a layer`)
  const options: Record<string, string> = {}
  const steps: LayerStep[] = []
  let [format, size, compressed]: ['raw' | 'qcow2', number | undefined, boolean] = [
    'qcow2',
    undefined,
    false,
  ]
  for (const word of rest) {
    const fill = parseFill(word)
    const option = /^([a-z_]+)=(\w+)$/.exec(word)
    if (fill !== undefined) steps.push({ do: 'fill', fill })
    else if (word.startsWith('@') && word.length > 1)
      steps.push({ do: 'snapshot', name: word.slice(1) })
    else if (option !== null) options[option[1] as string] = option[2] as string
    else if (word === 'raw' || word === 'qcow2') format = word
    else if (word === 'compressed') compressed = true
    else if (/^\d/.test(word)) size = parseSize(word)
    else throw refuse(`'${word}' in layer '${name}' makes no sense`)
  }
  if (format === 'raw' && (compressed || steps.some((step) => step.do === 'snapshot'))) {
    throw refuse(`raw layer '${name}' has neither snapshots nor compressed clusters`)
  }
  const file = /\.\w+$/.test(name) ? name : `${name}.${format}`
  return { file, name, format, size, options, compressed, steps }
}

function parseFill(word: string): Fill | undefined {
  const match = FILL.exec(word)
  if (match === null) return undefined
  const [, offset, length, value] = match as unknown as [string, string, string, string]
  const range = { offset: parseSize(offset), length: parseSize(length) }
  if (value === 'zero' || value === 'discard') return { ...range, value }
  const byte = Number(value)
  if (!Number.isInteger(byte) || byte < 0 || byte > 255) throw refuse(`'${value}' is no byte`)
  return { ...range, value: byte }
}

function refuse(message: string): UsageError {
  return new UsageError('CHAIN_TEXT', message)
}
