/**
 * Buffers that begin at a page boundary. The kernel copies a file's bytes into them up to five times as fast as into memory
 * that begins anywhere, which is what an ordinary array gets.
 */

const WASM_PAGE = 65536

interface Memory {
  readonly buffer: ArrayBuffer
}

// The types of Node leave WebAssembly to those of browsers.
const { WebAssembly } = globalThis as unknown as {
  readonly WebAssembly?: { readonly Memory: new (size: { initial: number }) => Memory }
}

/**
 * `length` bytes of zeroes for transfers of files; each call reserves address space and takes a tenth of a millisecond, so keep
 * them for a whole job. Ordinary memory where the host has no address space to spare.
 */
export function alignedBytes(length: number): Uint8Array {
  try {
    if (WebAssembly !== undefined && length > 0) {
      const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(length / WASM_PAGE) })
      return new Uint8Array(buffer, 0, length)
    }
  } catch {
    // Too much was asked for, or the address space is limited: then slower.
  }
  return new Uint8Array(length)
}
