/** External data files, and raw disks whole and in part. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { makeOverlay } from './overlay.ts'
import { readAll, watched } from './watch.ts'

const KIB = 1024
const MIB = 1024 * KIB

describeWithQemu('an external data file', () => {
  it('is opened beside the image, with the rights of the image', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'data_file=data', 'top', '1M'], {
      cwd: folder,
    })
    await qemuIoOk('top', ['write -P 6 0 64K', 'write -P 7 512K 64K'], { cwd: folder })
    const files = watched()
    await using chain = await openChain(at('top'), { files })
    expect(files.opened).toEqual(['read top', 'read data'])
    expect(chain.active.dataFilename).toBe(at('data'))
    const bytes = await readAll(chain)
    expect([bytes[0], bytes[64 * KIB], bytes[512 * KIB]]).toEqual([6, 0, 7])
    await using described = await openChain(at('top'), { files, dataFiles: false })
    expect(described.active.dataFile).toBeUndefined()
  })

  it('is refused outside the allowed folders, as a loop, and where it is missing', async () => {
    const folder = tempFolder()
    const top = join(folder, 'top')
    const expected = {
      '/etc/hostname': 'REFERENCE_REFUSED',
      top: 'CHAIN_LOOP',
      gone: 'DATA_FILE_NOT_FOUND',
      // A protocol in this place would let whoever wrote the image choose what is opened: it is a file's name.
      'json:{"driver":"file","filename":"top"}': 'DATA_FILE_NOT_FOUND',
      'nbd://host': 'DATA_FILE_NOT_FOUND',
    }
    for (const [dataFile, code] of Object.entries(expected)) {
      await makeOverlay(top, { dataFile })
      const files = watched()
      await expect(openChain(top, { files }), dataFile).rejects.toMatchObject({
        code,
        context: { layer: 0, overlay: top, reference: dataFile },
      })
      expect(files.openCount()).toBe(0)
      await using chain = await openChain(top, { onBroken: 'report' })
      expect(chain.broken).toMatchObject([{ kind: 'data-file', layerIndex: 0, error: { code } }])
    }
  })
})

describe('a raw disk', () => {
  it('is written only where somebody said that it is raw', async () => {
    const path = join(tempFolder(), 'disk')
    writeFileSync(path, Buffer.alloc(MIB))
    await expect(openChain(path, { writable: true })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'FORMAT_REQUIRED',
    })
    await using chain = await openChain(path, { writable: true, format: 'raw' })
    await chain.device.write(512, Buffer.alloc(512, 1))
    expect(readFileSync(path)[512]).toBe(1)
  })

  it('counts in whole sectors, its last one filled up with zeroes', async () => {
    const path = join(tempFolder(), 'disk')
    writeFileSync(path, Buffer.alloc(1000, 1))
    await using chain = await openChain(path)
    expect(chain.device.size).toBe(1024)
    expect(await readAll(chain)).toEqual(Buffer.concat([Buffer.alloc(1000, 1), Buffer.alloc(24)]))
  })

  it('can be a window of a file that begins anywhere', async () => {
    const path = join(tempFolder(), 'disk')
    writeFileSync(path, Buffer.concat([Buffer.alloc(1000, 1), Buffer.alloc(1000, 2)]))
    const name = `json:{"driver":"raw","offset":1000,"file":{"driver":"file","filename":"${path}"}}`
    await using chain = await openChain(name, { writable: true })
    // QEMU counts the file as 2048 bytes, and what is left of it as whole sectors again.
    expect(chain.device.size).toBe(1536)
    expect(await readAll(chain)).toEqual(Buffer.concat([Buffer.alloc(1000, 2), Buffer.alloc(536)]))
    await chain.device.write(0, Buffer.alloc(1, 3))
    expect(readFileSync(path).subarray(999, 1002)).toEqual(Buffer.from([1, 3, 2]))
  })
})
