/** Copying from file to file inside the host, and what is said where the host cannot. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { FileDevice, type FileSystem, nodeFiles } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { tempFolder } from '../support/temp.ts'

async function pair(files: FileSystem, folder: string) {
  const source = await FileDevice.open(files, join(folder, 'source'))
  const target = await FileDevice.open(files, join(folder, 'target'), {
    create: 'new',
    growable: true,
  })
  return { source, target }
}

describe('copying from another file', () => {
  test('moves what there is, grows the file, and says how much that was', async () => {
    const folder = tempFolder()
    writeFileSync(join(folder, 'source'), Buffer.alloc(10_000, 7))
    const { source, target } = await pair(nodeFiles, folder)
    await target.write(0, new Uint8Array(100).fill(1))
    const done = await target.copyFrom(source, { from: 4000, to: 100, length: 8192 })
    // A host without the call says 0, and the caller copies by itself.
    expect([0, 6000]).toContain(done)
    expect(target.size).toBe(100 + done)
    const bytes = new Uint8Array(done)
    if (done > 0) await target.read(100, bytes)
    expect(bytes.every((byte) => byte === 7)).toBe(true)
    expect(await target.copyFrom(source, { from: 20_000, to: 0, length: 10 })).toBe(0)
    await source.close()
    await target.close()
  })

  test('cannot be done on files that have no such means', async () => {
    const files = new DiskFiles()
    files.put('/source', new Uint8Array(1000).fill(3))
    const { source, target } = await pair(files, '/')
    expect(await target.copyFrom(source, { from: 0, to: 0, length: 1000 })).toBe(0)
    expect(target.size).toBe(0)
  })

  test('needs a file that is open for writing', async () => {
    const files = new DiskFiles()
    files.put('/source', new Uint8Array(1000))
    const { source } = await pair(files, '/')
    const range = { from: 0, to: 0, length: 10 }
    await expect(source.copyFrom(source, range)).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  })
})
