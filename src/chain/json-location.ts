/**
 * What the options of a `json:` name mean: the drivers qcow2, raw and file, one over the other. Options that change only how
 * QEMU works are let through; any other is refused, since to overlook it would be to read other bytes than were meant.
 */

import { checkFormat, isFileDriver, unknownProtocol } from './driver.ts'
import { type Options, type OptionValue, parseJsonOptions } from './json-options.ts'
import type { FormatNode, Location } from './location.ts'
import type { FailLocation } from './location-error.ts'

const NODE_OPTIONS =
  /^(driver|node-name|read-only|auto-read-only|force-share|detect-zeroes|discard|cache(\..+)?)$/
const FILE_OPTIONS = /^(filename|aio|aio-max-batch|locking|pr-manager|drop-cache|x-check-.+)$/
const RAW_OPTIONS = /^(offset|size)$/
const QCOW2_OPTIONS =
  /^(lazy-refcounts|pass-discard-.+|discard-no-unref|overlap-check(\..+)?|(l2-|refcount-)?cache-size|l2-cache-entry-size|cache-clean-interval)$/

/** Parses `text`, which begins with `json:`. */
export function readJsonLocation(text: string, fail: FailLocation): Location {
  return readLocation(text, new Node(parseJsonOptions(text.slice(5), fail), '', fail))
}

/** The options below one dotted prefix. */
class Node {
  readonly fail: FailLocation
  readonly #options: Options
  readonly #prefix: string

  constructor(options: Options, prefix: string, fail: FailLocation) {
    this.#options = options
    this.#prefix = prefix
    this.fail = fail
  }

  value(key: string): OptionValue | undefined {
    return this.#options.get(this.#prefix + key)
  }

  string(key: string): string | undefined {
    const value = this.value(key)
    if (value === undefined || typeof value === 'string') return value
    throw this.fail(`option ${this.#prefix}${key} is no string`)
  }

  /** The node under `key`, undefined where there is none. */
  child(key: string): Node | undefined {
    if (typeof this.value(key) === 'string') {
      throw this.fail(`option ${this.#prefix}${key} names a node, which needs a running machine`)
    }
    const prefix = `${this.#prefix}${key}.`
    for (const name of this.#options.keys()) {
      if (name.startsWith(prefix)) return new Node(this.#options, prefix, this.fail)
    }
    return undefined
  }

  /** Refuses every option of this node that neither `known` nor the children take. */
  checkOptions(known: RegExp | undefined, children: readonly string[]): void {
    for (const name of this.#options.keys()) {
      if (!name.startsWith(this.#prefix)) continue
      const key = name.slice(this.#prefix.length)
      if (NODE_OPTIONS.test(key) || known?.test(key)) continue
      if (children.some((child) => key === child || key.startsWith(`${child}.`))) continue
      throw this.fail(`option ${name} is not supported`, 'OPTION_NOT_SUPPORTED', { option: name })
    }
  }
}

function readLocation(text: string, top: Node): Location {
  const formats: FormatNode[] = []
  let backing: Location | null | undefined
  let node = top
  let driver = node.string('driver')
  if (driver === undefined && node.child('file') === undefined) {
    throw node.fail('options name neither a driver nor a file')
  }
  while (driver === undefined || !isFileDriver(driver)) {
    if (formats.length > 0) checkLower(driver, node)
    formats.push(readFormat(driver, node))
    if (driver === 'qcow2') backing = readBacking(text, node)
    const file = node.child('file')
    if (file === undefined) throw node.fail(`driver ${driver} lacks a file`)
    node = file
    // Below a format, what names no driver is a file.
    driver = node.string('driver') ?? (node.child('file') === undefined ? 'auto' : undefined)
    if (driver === 'auto') break
    if (driver === undefined) throw node.fail('options name neither a driver nor a file')
  }
  return {
    text,
    hasProtocol: true,
    formats,
    driver: driver === 'auto' ? undefined : driver,
    path: readFile(node),
    ...(backing === undefined ? {} : { backing }),
  }
}

function checkLower(driver: string | undefined, node: Node): void {
  if (driver === 'raw') return
  if (driver === 'qcow2') {
    throw node.fail('format qcow2 below another format is not supported', 'FORMAT_NOT_SUPPORTED', {
      format: driver,
    })
  }
  throw unknownProtocol(String(driver), node.fail)
}

function readFormat(name: string | undefined, node: Node): FormatNode {
  if (name === undefined) {
    node.checkOptions(undefined, ['file'])
    return { driver: undefined }
  }
  const isProtocol = node.child('file') === undefined && name !== 'qcow2' && name !== 'raw'
  if (isProtocol) throw unknownProtocol(name, node.fail)
  const driver = checkFormat(name, node.fail)
  if (driver === 'qcow2') {
    node.checkOptions(QCOW2_OPTIONS, ['file', 'backing'])
    return { driver }
  }
  node.checkOptions(RAW_OPTIONS, ['file'])
  const offset = node.value('offset')
  const size = node.value('size')
  return {
    driver,
    ...(offset === undefined ? {} : { offset }),
    ...(size === undefined ? {} : { size }),
  }
}

function readBacking(text: string, node: Node): Location | null | undefined {
  if (node.value('backing') === null) return null
  const backing = node.child('backing')
  return backing === undefined ? undefined : readLocation(text, backing)
}

function readFile(node: Node): string {
  node.checkOptions(FILE_OPTIONS, [])
  const path = node.string('filename')
  if (path === undefined || path === '') throw node.fail('options lack the name of the file')
  return path
}
