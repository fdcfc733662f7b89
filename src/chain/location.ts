/**
 * Names of files as QEMU takes them: a plain path, `file:path`, or `json:{…}`. A name is parsed into the stack of formats over
 * one file. What a relative path is relative to is reference.ts's affair, what `json:` options mean json-location.ts's.
 */

import {
  checkFormat,
  type FileDriver,
  type Format,
  isFileDriver,
  unknownProtocol,
} from './driver.ts'
import { readJsonLocation } from './json-location.ts'
import type { OptionValue } from './json-options.ts'
import { type FailLocation, type LocationOrigin, locationFailure } from './location-error.ts'

/** One format over the file or over another format. */
export interface FormatNode {
  /** Undefined where it is to be found out. */
  readonly driver: Format | undefined
  /** The place of a raw window, as it was written; undefined where nothing was said. */
  readonly offset?: OptionValue
  readonly size?: OptionValue
}

/** Where an image is: formats, uppermost first, over one file. */
export interface Location {
  /** As it was written. */
  readonly text: string
  /** Whether it says by itself how it is to be read (`file:`, `json:`). */
  readonly hasProtocol: boolean
  /** Empty where the file itself is meant (`json:{"driver":"file",…}`). */
  readonly formats: readonly FormatNode[]
  /** Undefined where nothing was said: a file or a disk of the host, whatever is there. */
  readonly driver: FileDriver | undefined
  /** Of the file, as it was written: relative or absolute. */
  readonly path: string
  /** The backing file in place of the one that the image names: null means none, undefined that of the image. */
  readonly backing?: Location | null
}

/**
 * Parses a name. Rejects one that is empty, holds a NUL or (in an image) any control character, names a protocol or a format
 * that there is not, or has options that would change what is read: `INVALID_LOCATION`, `PROTOCOL_NOT_SUPPORTED`,
 * `FORMAT_NOT_SUPPORTED`, `OPTION_NOT_SUPPORTED`; a UsageError or an ImageError by who wrote it.
 */
export function parseLocation(text: string, origin: LocationOrigin = 'caller'): Location {
  const fail = locationFailure(text, origin)
  checkName(text, origin, fail)
  const protocol = protocolOf(text)
  if (protocol === 'json') {
    const location = readJsonLocation(text, fail)
    checkPaths(location, origin, fail)
    return location
  }
  if (protocol !== undefined && !isFileDriver(protocol)) throw unknownProtocol(protocol, fail)
  const path = protocol === undefined ? text : text.slice(protocol.length + 1)
  if (path === '') throw fail('file name is empty')
  return {
    text,
    hasProtocol: protocol !== undefined,
    formats: [{ driver: undefined }],
    driver: protocol === 'host_device' ? protocol : undefined,
    path,
  }
}

/**
 * The location read as `format`, as an overlay's backing format or a command's `-f` demands it: `qcow2`, `raw`, `file` or
 * `host_device`. It takes the place of the uppermost driver in a `json:` name, as in QEMU.
 */
export function withFormat(
  location: Location,
  format: string,
  origin: LocationOrigin = 'caller',
): Location {
  const fail = locationFailure(location.text, origin)
  const [top, ...below] = location.formats
  const isWindow = top?.offset !== undefined || top?.size !== undefined
  if (isFileDriver(format)) {
    if (below.length > 0) throw fail(`format ${format} cannot stand on format ${below[0]?.driver}`)
    if (isWindow) throw fail(`format ${format} takes no offset and no size`, 'OPTION_NOT_SUPPORTED')
    return { ...location, formats: [], driver: format }
  }
  const driver = checkFormat(format, fail)
  if (top === undefined) throw fail(`format ${driver} is demanded of what names no file below it`)
  if (driver === 'qcow2' && isWindow) {
    throw fail('format qcow2 takes no offset and no size', 'OPTION_NOT_SUPPORTED')
  }
  return { ...location, formats: [{ ...top, driver }, ...below] }
}

/** What stands before the first colon where that comes before any slash: how QEMU is told to read a name. */
export function protocolOf(text: string): string | undefined {
  const protocol = /^([^:/]*):/.exec(text)?.[1]
  // A single letter before a backslash is a drive of Windows.
  return protocol?.length === 1 && text[2] === '\\' ? undefined : protocol
}

function checkPaths(location: Location, origin: LocationOrigin, fail: FailLocation): void {
  checkName(location.path, origin, fail)
  if (location.backing) checkPaths(location.backing, origin, fail)
}

/** Refuses a NUL, and in an image every control character. */
export function checkName(text: string, origin: LocationOrigin, fail: FailLocation): void {
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === 0) throw fail('file name holds a NUL character')
    if (origin === 'image' && (unit < 0x20 || unit === 0x7f)) {
      throw fail(`file name holds the control character 0x${unit.toString(16)}`)
    }
  }
}
