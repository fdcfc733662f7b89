/** `convert -C`: copies that the host makes read as the source, whatever of it the host cannot copy, and also where it copies nothing. */

import { ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compare } from '../../src/block/index.ts'
import { commitLayer, convertToNew, Gate, openChain } from '../../src/chain/index.ts'
import { checkImage } from '../../src/qcow2/index.ts'
import { type FileSystem, nodeFiles, type OpenFile } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1024 * 1024
const gate = new Gate({ allowAll: true })

/** A raw disk with data, holes and an end that fills no sector. */
function writeRaw(path: string): void {
  const file = openSync(path, 'w')
  const bytes = Uint8Array.from({ length: MIB }, (_, at) => (at % 251) + 1)
  for (const offset of [0, 3 * MIB, 5 * MIB + 4096]) writeSync(file, bytes, 0, MIB, offset)
  writeSync(file, bytes, 0, 1000, 9 * MIB + 512)
  ftruncateSync(file, 9 * MIB + 1600)
}

async function run(...words: string[]): Promise<void> {
  const { status, stderr } = await runCli(words)
  expect([status, stderr]).toEqual([0, ''])
}

/** One source of each kind: what the host can copy whole, in part, and not at all. */
const SOURCES: Readonly<Record<string, (folder: string) => Promise<string>>> = {
  raw: async (folder) => {
    const path = join(folder, 'in.raw')
    writeRaw(path)
    return path
  },
  qcow2: async (folder) => {
    const path = join(folder, 'in.qcow2')
    await run('convert', '-f', 'raw', '-O', 'qcow2', await SOURCES.raw!(folder), path)
    await run('io', '-c', 'write -z 3M 200k', '-c', 'write -P 5 7M 100k', path)
    return path
  },
  'compressed qcow2': async (folder) => {
    const path = join(folder, 'in.qcow2')
    await run('convert', '-c', '-f', 'raw', '-O', 'qcow2', await SOURCES.raw!(folder), path)
    await run('io', '-c', 'write -P 5 2M 300k', path)
    return path
  },
  overlay: async (folder) => {
    const [base, path] = [await SOURCES.qcow2!(folder), join(folder, 'over.qcow2')]
    await run('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', path)
    await run('io', '-c', 'write -P 9 100k 1M', '-c', 'write -z 5M 1M', path)
    return path
  },
}

/** A host that copies between files by `copyRange`. */
function copying(copyRange: (to: OpenFile, ...rest: CopyCall) => number | undefined): FileSystem {
  return withCall('copyRange', copyRange)
}

/** A host with a way of its own to copy or to share. */
function withCall(
  name: 'copyRange' | 'shareRange',
  work: (to: OpenFile, ...rest: CopyCall) => unknown,
): FileSystem {
  return {
    ...nodeFiles,
    open: async (path, mode) => {
      const file = await nodeFiles.open(path, mode)
      return new Proxy(file, {
        get: (target, key) => {
          if (key === name) return (...call: CopyCall) => work(target, ...call)
          const value = Reflect.get(target, key, target)
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
    },
  }
}

type CopyCall = Parameters<NonNullable<OpenFile['copyRange']>>

const withoutCopies = copying(() => undefined)

describe.each(Object.keys(SOURCES))('a %s source', (kind) => {
  it.each([
    ['raw', nodeFiles],
    ['qcow2', nodeFiles],
    ['raw', withoutCopies],
    ['qcow2', withoutCopies],
  ] as const)('reads the same as %s', async (format, files) => {
    const folder = tempFolder()
    const location = join(folder, 'out')
    await using source = await openChain(await SOURCES[kind]!(folder), { files, gate })
    const { device, active: layer } = source
    const layout = format === 'raw' ? ({ format } as const) : ({ format, options: {} } as const)
    const byHost = { device, layer }
    await convertToNew(device, { location, layout, files }, { byHost })
    await using copy = await openChain(location, { format })
    expect(await compare(device, copy.device)).toEqual({ identical: true, sizesDiffer: false })
    if (format === 'raw') return
    const report = await checkImage(copy.active.file)
    expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0])
    // What holds nothing takes no space.
    expect(await copy.active.image?.map(MIB, MIB)).toEqual(
      kind === 'overlay' ? expect.anything() : { kind: 'unallocated', length: expect.anything() },
    )
  })
})

describe('what the host copies', () => {
  /** Converts a raw disk and says how many bytes went through the host. */
  async function moved(
    layout: Parameters<typeof convertToNew>[1]['layout'],
    compress = false,
  ): Promise<number> {
    let total = 0
    const files = copying((file, source, { from, to, length }) => {
      const bytes = new Uint8Array(Math.min(length, 300_000))
      const count = file.writeSync(bytes.subarray(0, source.readSync(bytes, from)), to)
      total += count
      return count
    })
    const folder = tempFolder()
    await using source = await openChain(await SOURCES.raw!(folder), { files, gate })
    const { device, active: layer } = source
    const location = join(folder, 'out')
    await convertToNew(device, { location, layout, files }, { byHost: { device, layer }, compress })
    await using copy = await openChain(location, { format: layout.format })
    expect(await compare(device, copy.device)).toEqual({ identical: true, sizesDiffer: false })
    return total
  }

  it('is all data of a raw disk, into qcow2 where it begins at a cluster', async () => {
    expect(await moved({ format: 'raw' })).toBeGreaterThan(3 * MIB)
    expect(await moved({ format: 'qcow2', options: {} })).toBeGreaterThanOrEqual(2 * MIB)
  })

  it('is nothing where clusters are compressed or have their places', async () => {
    expect(await moved({ format: 'qcow2', options: {} }, true)).toBe(0)
    expect(await moved({ format: 'qcow2', options: { preallocation: 'metadata' } })).toBe(0)
  })
})

describe('a commit', () => {
  /** A host that shares the first `count` ranges it is asked for, and no more. */
  function sharing(count: number, shared: number[]): FileSystem {
    return withCall('shareRange', (file, source, { from, to, length }) => {
      if (shared.length === count) return false
      const bytes = new Uint8Array(length)
      file.writeSync(bytes.subarray(0, source.readSync(bytes, from)), to)
      shared.push(length)
      return true
    })
  }

  it.each([0, 1, 2, 1000])('has the host share what it can, here %i ranges', async (count) => {
    const folder = tempFolder()
    const top = await SOURCES.overlay!(folder)
    await run('io', '-c', 'write -P 3 7M 1M', top)
    await run('convert', '-O', 'raw', top, join(folder, 'expected'))
    const shared: number[] = []
    await commitLayer(top, { files: sharing(count, shared) })
    expect(shared.length).toBe(Math.min(count, 2))
    await using expected = await openChain(join(folder, 'expected'), { format: 'raw' })
    for (const path of [top, join(folder, 'in.qcow2')]) {
      await using chain = await openChain(path, { gate })
      const found = await compare(expected.device, chain.device)
      expect(found).toEqual({ identical: true, sizesDiffer: false })
      const report = await checkImage(chain.active.file)
      expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0])
    }
  })
})

it('leaves written zeroes data, where convert without -C finds them', async () => {
  const folder = tempFolder()
  const [path, out] = [join(folder, 'zeroes.raw'), join(folder, 'out.qcow2')]
  writeFileSync(path, Buffer.alloc(MIB))
  const kinds = []
  for (const more of [[], ['-C']]) {
    await run('convert', ...more, '-f', 'raw', '-O', 'qcow2', path, out)
    await using chain = await openChain(out, { gate })
    kinds.push((await chain.active.image?.map(0, MIB))?.kind)
  }
  expect(kinds).toEqual(['unallocated', 'normal'])
})

it('is what convert -C does, beside options that leave it to a plain copy', async () => {
  const folder = tempFolder()
  const path = await SOURCES.qcow2!(folder)
  const out = join(folder, 'out.qcow2')
  for (const more of [[], ['-r', '100M'], ['-t', 'writeback'], ['-W', '-m', '4']]) {
    await run('convert', '-C', ...more, '-O', 'qcow2', path, out)
    await run('compare', '-q', path, out)
    await run('check', '-q', out)
  }
})
