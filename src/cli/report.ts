/** How results and failures look: JSON as QEMU prints it, and failures as one line of text or one JSON object. */

import type { Failure } from './exit.ts'

/** Where to tell about a bug. */
const BUG_PLEA = 'this is a bug in cowpoint; please report it with the lines below'

/** A failure as text, ending in a line feed; empty where there is nothing to say. */
export function failureText(failure: Failure): string {
  if (failure.kind === 'interrupted') {
    return failure.status === 141 ? '' : `cowpoint: ${failure.message}\n`
  }
  const about = failure.subject === undefined ? '' : `${failure.subject}: `
  const lines = [`cowpoint: ${about}${failure.message} [${failure.code}]`]
  if (failure.hint !== undefined) lines.push(`cowpoint: hint: ${failure.hint}`)
  if (failure.kind === 'bug') lines.push(`cowpoint: ${BUG_PLEA}`, failure.stack ?? '')
  return `${lines.join('\n')}\n`
}

/** A failure as one line of JSON: `{"error":{"code":…}}`. */
export function failureJson(failure: Failure): string {
  return `${JSON.stringify({ error: failure })}\n`
}

/**
 * A value as QEMU's tools print it with `--output=json`: four blanks a level, and everything beyond ASCII escaped.
 * Ends without a line feed. Keys keep their order, `undefined` ones are left out.
 */
export function prettyJson(value: unknown): string {
  return asciiOnly(layOut(value, '\n'))
}

/** Unlike `JSON.stringify` it closes empty lists and objects on a line of their own, and takes 64-bit numbers. */
function layOut(value: unknown, line: string): string {
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${line}    `
  const isList = Array.isArray(value)
  const items = isList
    ? value.map((item) => layOut(item, inner))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${JSON.stringify(key)}: ${layOut(item, inner)}`)
  const [open, close] = isList ? '[]' : '{}'
  return open + items.map((item) => inner + item).join(',') + line + close
}

/** A text as a JSON string as QEMU writes it, quotes included. */
export function jsonString(text: string): string {
  return asciiOnly(JSON.stringify(text))
}

function asciiOnly(json: string): string {
  return json
    .replace(/\\(?:u[0-9a-f]{4}|.)/g, (sequence) =>
      sequence.length === 2 ? sequence : `\\u${sequence.slice(2).toUpperCase()}`,
    )
    .replace(
      /[\x7f-\uffff]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
    )
}
