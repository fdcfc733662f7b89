/**
 * Reads and writes without a promise where none is needed: what a device has at hand is done when the call returns. A promise
 * costs little, but a request passes through a promise in each layer of a chain.
 */

import type { BlockDevice } from './device.ts'

const DONE = Promise.resolve()

/** Fills all of `target` from `offset`: at once (`undefined`), or when the promise resolves. Throws or rejects as `read` does. */
export function beginRead(
  device: BlockDevice,
  offset: number,
  target: Uint8Array,
): Promise<void> | undefined {
  return device.readNow === undefined ? device.read(offset, target) : device.readNow(offset, target)
}

/** Writes all of `source` at `offset`: at once (`undefined`), or when the promise resolves. Throws or rejects as `write` does. */
export function beginWrite(
  device: BlockDevice,
  offset: number,
  source: Uint8Array,
): Promise<void> | undefined {
  return device.writeNow === undefined
    ? device.write(offset, source)
    : device.writeNow(offset, source)
}

/** Makes `read` of `readNow`: what was done at once is a promise that has resolved, what was thrown one that has rejected. */
export function promiseOf(begin: () => Promise<void> | undefined): Promise<void> {
  try {
    return begin() ?? DONE
  } catch (error) {
    return Promise.reject(error)
  }
}
