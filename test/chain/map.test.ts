/** The map of chains against that of the real qemu-img, extent by extent. */

import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import {
  type ChainOptions,
  Gate,
  type MapExtent,
  mapChain,
  openChain,
} from '../../src/chain/index.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { makeOverlay } from './overlay.ts'

/** What `qemu-img map --output=json` of any version prints of an extent. */
function shown({ filename: _, compressed, ...extent }: MapExtent, withCompressed: boolean): object {
  return withCompressed ? { ...extent, compressed } : extent
}

async function expectQemusMap(name: string, options: ChainOptions = {}): Promise<MapExtent[]> {
  const format = options.format === undefined ? [] : ['-f', options.format]
  const printed = JSON.parse(await qemuImgOk(['map', '--output=json', ...format, name]))
  await using chain = await openChain(name, { gate: new Gate({ allowAll: true }), ...options })
  const extents: MapExtent[] = []
  for await (const extent of mapChain(chain)) extents.push(extent)
  const withCompressed = printed.some((extent: object) => 'compressed' in extent)
  // Of a disk without a byte qemu-img prints a run without a byte.
  const expected = chain.device.size === 0 ? [] : printed
  expect(extents.map((extent) => shown(extent, withCompressed))).toEqual(expected)
  return extents
}

/** A raw file of `size` bytes with data in `[offset, offset + length)` for each of `data`, holes elsewhere. */
function sparse(path: string, size: number, data: readonly [number, number][]): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  for (const [offset, length] of data) writeSync(fd, Buffer.alloc(length, 1), 0, length, offset)
  closeSync(fd)
}

const K = 1024
const M = 1024 * K

describeWithQemu('the map of a chain equals that of qemu-img', () => {
  it.each([
    ['an empty one', '', []],
    ['data, holes and zeroes', '', ['write 0 100K', 'write -z 1M 128K', 'write 3M 1M']],
    ['version 2', 'compat=0.10', ['write 64K 64K', 'write 200K 1K']],
    ['preallocated zero clusters', '', ['write 0 1M', 'write -z 128K 256K', 'discard 512K 64K']],
    ['compressed clusters', '', ['write -c 0 64K', 'write -c 64K 64K', 'write 256K 64K']],
    ['subclusters', 'extended_l2=on', ['write 2K 2K', 'write 64K 20K', 'write -z 128K 4K']],
    ['small clusters', 'cluster_size=512', ['write 1K 5K', 'write 2M 3K', 'write -z 1M 1K']],
    ['large clusters', 'cluster_size=2M', ['write 1K 5K', 'write 3M 3K']],
    [
      'clusters out of order',
      '',
      ['write 1M 64K', 'write 64K 64K', 'write 128K 64K', 'write 0 64K'],
    ],
    ['metadata preallocation', 'preallocation=metadata', ['write 1M 200K']],
    ['full preallocation', 'preallocation=full', []],
    ['an odd size', 'cluster_size=64K', ['write 3900K 100K']],
  ])('for an image with %s', async (what, options, commands) => {
    const path = join(tempFolder(), 'image')
    const settings = options === '' ? [] : ['-o', options]
    const size = what === 'an odd size' ? '4000K' : '8M'
    await qemuImgOk(['create', '-q', '-f', 'qcow2', ...settings, path, size])
    await qemuIoOk(path, commands)
    await expectQemusMap(path)
  })

  it.each([
    [
      'holes',
      4 * M,
      [
        [64 * K, 64 * K],
        [M, 300 * K],
      ],
    ],
    ['nothing but a hole', M, []],
    ['a tail that is no whole sector', 1000, [[0, 1000]]],
    ['a tail that is no whole sector, in a hole', 100_001, [[0, 4096]]],
    ['no bytes at all', 0, []],
  ] as [string, number, [number, number][]][])('for a raw disk with %s', async (_, size, data) => {
    const folder = tempFolder()
    sparse(join(folder, 'raw'), size, data)
    await expectQemusMap(join(folder, 'raw'), { format: 'raw' })
    await makeOverlay(join(folder, 'top'), { backing: 'raw', backingFormat: 'raw', size: '6M' })
    await qemuIoOk(join(folder, 'top'), ['write 1M 64K', 'write 100 100'])
    const extents = await expectQemusMap(join(folder, 'top'))
    expect(new Set(extents.map((extent) => extent.filename))).toContain(join(folder, 'top'))
  })

  it('for layers that end before the one above them', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    sparse(at('raw'), 300 * K, [[0, 40 * K]])
    await makeOverlay(at('a'), { backing: 'raw', backingFormat: 'raw', size: '2M' })
    await qemuIoOk(at('a'), ['write 1M 64K'])
    await makeOverlay(at('b'), { backing: 'a', backingFormat: 'qcow2', size: '1536K' })
    await qemuIoOk(at('b'), ['write -z 64K 64K'])
    await makeOverlay(at('c'), {
      backing: 'b',
      backingFormat: 'qcow2',
      size: '3M',
      options: 'extended_l2=on',
    })
    await qemuIoOk(at('c'), ['write 2500K 1K', 'write 1408K 2K'])
    const extents = await expectQemusMap(at('c'))
    expect(new Set(extents.map((extent) => extent.depth))).toEqual(new Set([0, 1, 2, 3]))
  })

  it('for windows of files', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    sparse(at('raw'), 2 * M, [[256 * K, 128 * K]])
    const file = `{"driver":"file","filename":"${at('raw')}"}`
    for (const window of ['"offset":65536', '"size":"300K"', '"offset":200704,"size":1048576']) {
      const backing = `json:{"driver":"raw",${window},"file":${file}}`
      await makeOverlay(at('top'), { backing, backingFormat: 'raw', size: '4M' })
      await qemuIoOk(at('top'), ['write 128K 64K'])
      await expectQemusMap(at('top'))
    }
  })

  it.each(['off', 'on'])('for an external data file, raw %s', async (raw) => {
    const folder = tempFolder()
    const options = `data_file=${join(folder, 'data')},data_file_raw=${raw}`
    const path = join(folder, 'image')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', options, path, '4M'])
    await qemuIoOk(path, ['write 0 100K', 'write 1M 64K', 'write -z 2M 64K'])
    const extents = await expectQemusMap(path)
    expect(extents[0]?.filename).toBe(join(folder, 'data'))
  })

  it('for a chain in shreds', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    let below: string | undefined
    for (let layer = 0; layer < 12; layer++) {
      const name = `layer${layer}`
      await makeOverlay(at(name), {
        size: '16M',
        options: `cluster_size=${['4K', '64K', '16K'][layer % 3]}`,
        ...(below === undefined ? {} : { backing: below, backingFormat: 'qcow2' }),
      })
      const commands: string[] = []
      for (let step = 0; step < 20; step++) {
        const at4K = (step * 977 + layer * 613) % 4000
        const verb = ['write', 'write -z', 'write -c -P 5'][step % 3] as string
        const length = verb.includes('-c') ? '4K' : `${4 * (1 + (step % 7))}K`
        if (!verb.includes('-c') || layer % 3 === 0) commands.push(`${verb} ${at4K * 4}K ${length}`)
      }
      await qemuIoOk(at(name), commands)
      below = name
    }
    const extents = await expectQemusMap(at('layer11'))
    expect(extents.length).toBeGreaterThan(100)
  })
})

describeWithQemu('the map of a chain', () => {
  it('can be that of a part, cut at its ends', async () => {
    const path = join(tempFolder(), 'image')
    await makeOverlay(path)
    await qemuIoOk(path, ['write 64K 128K'])
    await using chain = await openChain(path)
    const extents: MapExtent[] = []
    for await (const extent of mapChain(chain, 100 * K, 200 * K)) extents.push(extent)
    expect(extents).toMatchObject([
      { start: 100 * K, length: 92 * K, data: true, offset: 5 * 64 * K + 36 * K },
      { start: 192 * K, length: 108 * K, present: false, zero: true },
    ])
    await expect(mapChain(chain, M, 1).next()).rejects.toMatchObject({ code: 'OUT_OF_RANGE' })
  })

  it('stops where its signal is aborted', async () => {
    const path = join(tempFolder(), 'image')
    await makeOverlay(path)
    await using chain = await openChain(path)
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(mapChain(chain, 0, M, { signal }).next()).rejects.toThrow('enough')
  })

  it('ends where a link is broken, not in zeroes', async () => {
    const folder = tempFolder()
    const path = join(folder, 'image')
    await makeOverlay(path, { backing: 'gone', backingFormat: 'raw' })
    await using chain = await openChain(path, { onBroken: 'report' })
    await expect(mapChain(chain).next()).rejects.toMatchObject({ code: 'BACKING_NOT_FOUND' })
  })
})
