/**
 * Locations back to text, as qemu-img prints them: the path where that alone leads to the same image again, else the canonical
 * `json:` form (the order of keys is that of QEMU's hash tables).
 */

import type { FileDriver } from './driver.ts'
import type { OptionValue } from './json-options.ts'
import type { Location } from './location.ts'

/** What opening found out about a location. */
export interface OpenedLocation {
  readonly location: Location
  /** As it was opened: a relative name is joined to its folder. */
  readonly path: string
  readonly driver: FileDriver
}

/** The name of an opened image, as `filename` in qemu-img's output. */
export function filenameOf({ location, path, driver }: OpenedLocation): string {
  const [top, ...below] = location.formats
  if (top === undefined) return path
  if (below.length === 0 && top.offset === undefined && top.size === undefined) return path
  let text = `{"driver": "${driver}", "filename": ${quote(path)}}`
  for (const format of location.formats.toReversed()) {
    const parts: string[] = []
    if (format.offset !== undefined) parts.push(`"offset": ${value(format.offset)}`)
    parts.push(`"driver": "${format.driver ?? 'raw'}"`)
    if (format.size !== undefined) parts.push(`"size": ${value(format.size)}`)
    parts.push(`"file": ${text}`)
    text = `{${parts.join(', ')}}`
  }
  return `json:${text}`
}

function value(option: OptionValue): string {
  return typeof option === 'string' ? quote(option) : String(option)
}

/** A JSON string in ASCII, escapes in the capitals that QEMU uses. */
function quote(text: string): string {
  return JSON.stringify(text)
    .replace(/\\(?:u[0-9a-f]{4}|.)/g, (sequence) =>
      sequence.length === 2 ? sequence : `\\u${sequence.slice(2).toUpperCase()}`,
    )
    .replace(
      /[\x7f-\uffff]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
    )
}
