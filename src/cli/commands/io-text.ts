/** What `io` prints, to the letter as qemu-io does: sizes, reports of what was done and how fast, hex dumps. */

const UNITS = ['EiB', 'PiB', 'TiB', 'GiB', 'MiB', 'KiB'] as const

/** An amount in qemu-io's way: `64 KiB`, `1.500 MiB`, `100 bytes`. */
export function amountText(value: number): string {
  for (const [index, unit] of UNITS.entries()) {
    const divisor = 1024 ** (UNITS.length - index)
    if (value >= divisor) return withUnit((value / divisor).toFixed(3), unit)
  }
  return withUnit(value.toFixed(6), 'bytes')
}

/** Digits of nothing but zeroes after the point are left out, and with them all that follow. */
function withUnit(digits: string, unit: string): string {
  const point = digits.indexOf('.000')
  return `${point < 0 ? digits : digits.slice(0, point)} ${unit}`
}

/** What one request did, and how long it took. */
export interface Done {
  /** `read`, `wrote`, `discard`. */
  readonly what: string
  readonly offset: number
  readonly length: number
  readonly elapsedMs: number
}

/** The two lines after a request. */
export function reportText({ what, offset, length, elapsedMs }: Done): string {
  const seconds = Math.max(elapsedMs, 1e-6) / 1000
  const rate = `${amountText(length / seconds)}/sec and ${(1 / seconds).toFixed(4)} ops/sec`
  return (
    `${what} ${length}/${length} bytes at offset ${offset}\n` +
    `${amountText(length)}, 1 ops; ${timeText(seconds, false)} (${rate})\n`
  )
}

/** The one line after a request with `-C`: bytes, requests, time, bytes and requests a second. */
export function terseReport({ length, elapsedMs }: Done): string {
  const seconds = Math.max(elapsedMs, 1e-6) / 1000
  const rates = `${(length / seconds).toFixed(3)},${(1 / seconds).toFixed(3)}`
  return `${length},1,${timeText(seconds, true)},${rates}\n`
}

function timeText(seconds: number, verbose: boolean): string {
  const below = (seconds % 60).toFixed(2).padStart(5, '0')
  if (!verbose && seconds < 1) return `${below} sec`
  const minutes = `${Math.floor(seconds / 60) % 60}`.padStart(2, '0')
  return `${Math.floor(seconds / 3600)}:${minutes}:${below}`
}

/** Sixteen bytes a line: address, hex, and letters and digits where there are some. */
export function dumpText(bytes: Uint8Array, offset: number): string {
  let text = ''
  for (let at = 0; at < bytes.length; at += 16) {
    const line = bytes.subarray(at, at + 16)
    text += `${(offset + at).toString(16).padStart(8, '0')}:  `
    for (const byte of line) text += `${byte.toString(16).padStart(2, '0')} `
    text += ' '
    for (const byte of line) {
      const letter = String.fromCharCode(byte)
      text += /[0-9A-Za-z]/.test(letter) ? letter : '.'
    }
    text += '\n'
  }
  return text
}

/** One run of the answer to `map`. */
export function mapLine(offset: number, length: number, allocated: boolean): string {
  const what = allocated ? '    allocated' : 'not allocated'
  const run = `${amountText(length)} (0x${length.toString(16)}) bytes`
  return `${run} ${what} at offset ${amountText(offset)} (0x${offset.toString(16)})\n`
}
