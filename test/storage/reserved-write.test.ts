/** What reserving the space of a write must not change: the bytes, the holes around them, and what a failure looks like. */

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { IoError } from '../../src/base/errors.ts'
import { disableNative } from '../../src/native/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { likesReserved } from '../../src/storage/reserved-write.ts'
import { pattern } from '../support/device-contract.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1024 * 1024

/** Writes some runs, long and short ones, into a file of holes; says what the file takes on the disk. */
async function fill(path: string, reserveWrites: boolean): Promise<number> {
  const device = await FileDevice.open(nodeFiles, path, { create: 'new', reserveWrites })
  try {
    await device.resize(16 * MIB)
    await Promise.all([
      device.write(MIB, pattern(MIB, 1)),
      device.write(4 * MIB, pattern(512 * 1024, 2)),
      device.write(5 * MIB, pattern(4096, 3)),
      device.write(8 * MIB + 4096, pattern(3 * MIB, 4)),
    ])
    await device.flush()
  } finally {
    await device.close()
  }
  return statSync(path).blocks * 512
}

describe('reserved writes', () => {
  it('leave the same bytes and the same holes as others', async () => {
    const folder = tempFolder()
    const [plain, reserved] = [join(folder, 'plain'), join(folder, 'reserved')]
    const space = await fill(plain, false)
    expect(await fill(reserved, true)).toBeLessThanOrEqual(space + 64 * 1024)
    expect(readFileSync(reserved).equals(readFileSync(plain))).toBe(true)
  })

  it('are plain writes where the host cannot reserve', async () => {
    const folder = tempFolder()
    const [plain, reserved] = [join(folder, 'plain'), join(folder, 'reserved')]
    await fill(plain, false)
    disableNative(true)
    try {
      await fill(reserved, true)
    } finally {
      disableNative(false)
    }
    expect(readFileSync(reserved).equals(readFileSync(plain))).toBe(true)
  })

  it('fail as others do', async () => {
    const path = join(tempFolder(), 'file')
    writeFileSync(path, 'not to be written')
    const file = await nodeFiles.open(path, 'read')
    file.reserveWrites?.()
    await expect(file.write(pattern(MIB, 1), 0)).rejects.toThrow(IoError)
    await file.close()
  })

  it('are not made where nobody can say what the file system is', () => {
    expect(likesReserved(join(tempFolder(), 'missing'))).toBe(false)
  })
})
