/**
 * Zeroes and holes in a file: by the host's own means in steps, so that none blocks for long, else
 * by writing zeroes.
 */

import { breathe } from '../base/breathe.ts'
import { transferAll } from './file-transfer.ts'
import type { OpenFile } from './files.ts'
import { hostError } from './host-error.ts'

const STEP = 1024 * 1024 * 1024
const ZEROES = new Uint8Array(256 * 1024)

/**
 * Makes a range inside the file read as zeroes; `mayDiscard` gives its space back where the host
 * can.
 */
export async function clearRange(
  file: OpenFile,
  offset: number,
  length: number,
  options: { mayDiscard?: boolean } = {},
): Promise<void> {
  const end = offset + length
  for (let at = offset; at < end; ) {
    const step = Math.min(STEP, end - at)
    if (!clearByHost(file, at, step, options.mayDiscard ?? false)) {
      await writeZeroes(file, at, step)
    }
    at += step
    await breathe()
  }
}

/** Gives the space of a range inside the file back where the host can, and else does nothing. */
export async function giveBack(file: OpenFile, offset: number, length: number): Promise<void> {
  const end = offset + length
  for (let at = offset; at < end; ) {
    const step = Math.min(STEP, end - at)
    try {
      if (!file.punchHole(at, step)) return
    } catch (error) {
      throw hostError(error, 'discard', { offset: at, length: step })
    }
    at += step
    await breathe()
  }
}

function clearByHost(file: OpenFile, offset: number, length: number, punch: boolean): boolean {
  try {
    return (punch && file.punchHole(offset, length)) || file.zeroRange(offset, length)
  } catch (error) {
    throw hostError(error, 'write of zeroes', { offset, length })
  }
}

async function writeZeroes(file: OpenFile, offset: number, length: number): Promise<void> {
  for (let done = 0; done < length; done += ZEROES.length) {
    await transferAll(
      file,
      'write',
      offset + done,
      ZEROES.subarray(0, Math.min(ZEROES.length, length - done)),
    )
    await breathe()
  }
}
