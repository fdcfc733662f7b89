/**
 * Names in an image: bytes <-> text, without loss. They should be UTF-8 and need not be; a byte that is none becomes a lone low surrogate
 * (`\udc80` to `\udcff`) and turns back into itself when it is written, so that rewriting a table keeps every name (I7).
 */

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const encoder = new TextEncoder()
const ESCAPE = 0xdc00
const LONE_SURROGATE = /\p{Surrogate}/u

/** The text of a name. */
export function decodeName(bytes: Uint8Array): string {
  return decodeStrictly(bytes) ?? decodeEscaped(bytes)
}

/** The bytes of a name. */
export function encodeName(name: string): Uint8Array {
  return LONE_SURROGATE.test(name) ? encodeEscaped(name) : encoder.encode(name)
}

function decodeStrictly(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes)
  } catch {
    return undefined
  }
}

function decodeEscaped(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at] as number
    const length = byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
    const character = decodeStrictly(bytes.subarray(at, at + length))
    text += character ?? String.fromCharCode(ESCAPE + byte)
    at += character === undefined ? 1 : length
  }
  return text
}

function encodeEscaped(name: string): Uint8Array {
  const parts: number[] = []
  for (const character of name) {
    const code = character.codePointAt(0) as number
    if (code >= ESCAPE + 0x80 && code <= ESCAPE + 0xff) parts.push(code - ESCAPE)
    else parts.push(...encoder.encode(character))
  }
  return Uint8Array.from(parts)
}
