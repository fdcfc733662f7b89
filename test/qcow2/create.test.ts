/** New images against those of qemu-img: the same bytes where the layout is the same, the same verdict everywhere. */

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type CreateOptions, createQcow2 } from '../../src/qcow2/create.ts'
import { looksLikeQcow2, parseHeader } from '../../src/qcow2/layout/header.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { suiteFolder, tempFolder } from '../support/temp.ts'

const MIB = 1024 ** 2
const GIB = 1024 ** 3
const TIB = 1024 ** 4

/** The words that `qemu-img create` takes for the same thing. */
function createArguments(file: string, options: CreateOptions): string[] {
  const keys = [
    options.version === undefined ? [] : [`compat=${options.version === 2 ? '0.10' : '1.1'}`],
    options.clusterSize === undefined ? [] : [`cluster_size=${options.clusterSize}`],
    options.refcountBits === undefined ? [] : [`refcount_bits=${options.refcountBits}`],
    options.extendedL2 === undefined ? [] : [`extended_l2=${options.extendedL2 ? 'on' : 'off'}`],
    options.lazyRefcounts === undefined
      ? []
      : [`lazy_refcounts=${options.lazyRefcounts ? 'on' : 'off'}`],
    options.compressionType === undefined ? [] : [`compression_type=${options.compressionType}`],
    options.dataFile === undefined ? [] : [`data_file=${options.dataFile.name}`],
    options.dataFile?.raw === undefined
      ? []
      : [`data_file_raw=${options.dataFile.raw ? 'on' : 'off'}`],
    options.preallocation === undefined ? [] : [`preallocation=${options.preallocation}`],
  ].flat()
  return [
    'create',
    '-q',
    '-f',
    'qcow2',
    ...(keys.length === 0 ? [] : ['-o', keys.join(',')]),
    ...(options.backing === undefined
      ? []
      : ['-u', '-b', options.backing.name, '-F', options.backing.format ?? 'raw']),
    file,
    String(options.size),
  ]
}

async function createFile(path: string, options: CreateOptions): Promise<void> {
  const file = await FileDevice.open(nodeFiles, path, { create: 'replace' })
  try {
    await createQcow2(file, options)
  } finally {
    await file.close()
  }
}

function titleOf(options: CreateOptions): string {
  return JSON.stringify(options).replaceAll('"', '')
}

const CLUSTER_SIZES = [512, 1024, 4096, 8192, 65536, 2 * MIB]

const PLAIN: CreateOptions[] = [
  ...CLUSTER_SIZES.flatMap((clusterSize) => [
    { size: 100 * MIB, clusterSize },
    { size: 100 * MIB, clusterSize, version: 2 as const },
    { size: 5 * GIB + 512, clusterSize: Math.max(clusterSize, 4096), refcountBits: 1 },
    { size: 10 * MIB, clusterSize, refcountBits: 64, lazyRefcounts: true },
  ]),
  ...[1, 2, 4, 8, 16, 32, 64].map((refcountBits) => ({ size: GIB, refcountBits })),
  { size: 0 },
  { size: 0, version: 2 },
  { size: 1000 },
  { size: GIB, extendedL2: true },
  { size: GIB, extendedL2: true, clusterSize: 16384, compressionType: 'zstd' },
  { size: GIB, backing: { name: 'base.img', format: 'raw' } },
  { size: GIB, version: 2, backing: { name: 'base.img', format: 'qcow2' } },
  { size: GIB, clusterSize: 512, backing: { name: 'b'.repeat(370), format: 'raw' } },
  { size: GIB, backing: { name: 'b'.repeat(1023), format: 'raw' } },
  { size: 64 * TIB },
  { size: 2048 * TIB },
  { size: 4096 * TIB, clusterSize: 2 * MIB },
]

/** Where several refcount blocks are needed, QEMU leaves them in another order. */
const SEVERAL_BLOCKS: CreateOptions[] = [
  { size: 4 * GIB, clusterSize: 512 },
  { size: 2 * TIB, clusterSize: 4096, refcountBits: 64 },
  { size: 3 * GIB, clusterSize: 512, refcountBits: 32 },
  { size: 8 * TIB, clusterSize: 8192, refcountBits: 64, extendedL2: false },
]

/** Where the refcount table needs several clusters, QEMU leaves the one that it began with behind. */
const SEVERAL_TABLE_CLUSTERS: CreateOptions[] = [
  { size: 128 * GIB, clusterSize: 512 },
  { size: 128 * GIB, clusterSize: 512, refcountBits: 64 },
  { size: 10 * GIB, clusterSize: 512, refcountBits: 64 },
  { size: 200 * MIB, clusterSize: 512, refcountBits: 64, preallocation: 'metadata' },
]

const ALLOCATED: CreateOptions[] = [
  { size: GIB, preallocation: 'metadata' },
  { size: MIB, preallocation: 'metadata', version: 2 },
  { size: 1_000_000, preallocation: 'metadata' },
  { size: 10 * MIB, preallocation: 'metadata', clusterSize: 4096 },
  { size: 100 * MIB, preallocation: 'metadata', clusterSize: 4096, refcountBits: 32 },
  { size: 8 * GIB, preallocation: 'metadata', clusterSize: 2 * MIB },
  { size: GIB, preallocation: 'metadata', extendedL2: true },
  { size: 10 * MIB, preallocation: 'falloc' },
  { size: 10 * MIB + 512, preallocation: 'full' },
  { size: 10 * MIB, preallocation: 'full', clusterSize: 4096 },
]

describeWithQemu('a new image', () => {
  const folder = suiteFolder()
  const ours = join(folder, 'ours.qcow2')
  const theirs = join(folder, 'theirs.qcow2')

  it.each(PLAIN.map((options) => [titleOf(options), options] as const))(
    'is the very file that qemu-img makes: %s',
    async (_title, options) => {
      await createFile(ours, options)
      await qemuImgOk(createArguments(theirs, options))
      expect(statSync(ours).size).toBe(statSync(theirs).size)
      expect(Buffer.compare(readFileSync(ours), readFileSync(theirs))).toBe(0)
    },
  )

  it.each(SEVERAL_BLOCKS.map((options) => [titleOf(options), options] as const))(
    'with several refcount blocks is as long as that of qemu-img, and clean: %s',
    async (_title, options) => {
      await createFile(ours, options)
      await qemuImgOk(createArguments(theirs, options))
      expect(statSync(ours).size).toBe(statSync(theirs).size)
      expect((await qemuImg(['check', ours])).stdout).toMatch(/^No errors/)
    },
  )

  it.each(SEVERAL_TABLE_CLUSTERS.map((options) => [titleOf(options), options] as const))(
    'with a refcount table of several clusters is clean and takes writes: %s',
    async (_title, options) => {
      await createFile(ours, options)
      expect((await qemuImg(['check', ours])).stdout).toMatch(/^No errors/)
      await qemuIoOk(ours, ['write -P 3 0 1M', `write -P 4 ${options.size - MIB} 1M`])
      await qemuIoOk(ours, ['read -P 3 0 1M', `read -P 4 ${options.size - MIB} 1M`])
      expect((await qemuImg(['check', ours])).stdout).toMatch(/^No errors/)
    },
  )

  it.each(ALLOCATED.map((options) => [titleOf(options), options] as const))(
    'with preallocation is as long as that of qemu-img, and maps as much: %s',
    async (_title, options) => {
      await createFile(ours, options)
      await qemuImgOk(createArguments(theirs, options))
      expect(statSync(ours).size).toBe(statSync(theirs).size)
      const [a, b] = await Promise.all(
        [ours, theirs].map((path) => qemuImgOk(['check', '--output=json', path])),
      )
      const verdict = (text: string | undefined) => ({ ...JSON.parse(text ?? ''), filename: '' })
      // Where the tables lie among the data differs, and with it how many clusters follow each other.
      expect({ ...verdict(a), 'fragmented-clusters': 0 }).toEqual({
        ...verdict(b),
        'fragmented-clusters': 0,
      })
      await qemuImgOk(['compare', ours, theirs])
    },
  )

  it('takes writes from qemu-io into what was set aside, without growing', async () => {
    await createFile(ours, { size: 4 * MIB, preallocation: 'metadata' })
    const before = statSync(ours).size
    await qemuIoOk(ours, ['write -P 7 0 4M', 'read -P 7 0 4M'])
    expect(statSync(ours).size).toBe(before)
    expect((await qemuImg(['check', ours])).status).toBe(0)
  })

  it('shows its backing file through the space that is set aside', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'base'), Buffer.alloc(MIB, 5))
    await createFile(join(cwd, 'top.qcow2'), {
      size: MIB,
      extendedL2: true,
      preallocation: 'metadata',
      backing: { name: 'base', format: 'raw' },
    })
    await qemuIoOk('top.qcow2', ['read -P 5 0 1M', 'write -P 6 0 2k'], { cwd })
    await qemuIoOk('top.qcow2', ['read -P 6 0 2k', 'read -P 5 2k 1022k'], { cwd })
    expect((await qemuImg(['check', 'top.qcow2'], { cwd })).status).toBe(0)
  })
})

describeWithQemu('a new image with a data file', () => {
  const make = async (cwd: string, options: Omit<CreateOptions, 'dataFile'>, raw: boolean) => {
    const device = await FileDevice.open(nodeFiles, join(cwd, 'data'), { create: 'new' })
    await createFile(join(cwd, 'disk.qcow2'), {
      ...options,
      dataFile: { name: 'data', raw, device },
    })
    await device.close()
  }

  it.each([
    ['off', false],
    ['metadata', false],
    ['falloc', false],
    ['full', false],
    ['off', true],
    ['full', true],
  ] as const)('equals that of qemu-img: preallocation %s, raw %s', async (preallocation, raw) => {
    const [a, b] = [tempFolder(), tempFolder()]
    const options = { size: 1_000_000, preallocation }
    await make(a, options, raw)
    const dataFile = { name: 'data', raw }
    await qemuImgOk(createArguments('disk.qcow2', { ...options, dataFile }), { cwd: b })
    for (const name of ['disk.qcow2', 'data']) {
      const [left, right] = [readFileSync(join(a, name)), readFileSync(join(b, name))]
      expect([name, left.length]).toEqual([name, right.length])
      expect([name, Buffer.compare(left, right)]).toEqual([name, 0])
    }
  })

  it.each([false, true])(
    'that is raw reads as the raw file does: extended L2 %s',
    async (extendedL2) => {
      const cwd = tempFolder()
      await make(cwd, { size: 3 * MIB + 512, extendedL2 }, true)
      writeFileSync(join(cwd, 'data'), Buffer.alloc(3 * MIB + 65536, 9))
      await qemuIoOk('disk.qcow2', ['read -P 9 0 3M', 'read -P 9 3M 512'], { cwd })
      expect((await qemuImg(['check', 'disk.qcow2'], { cwd })).stdout).toMatch(/^No errors/)
    },
  )
})

describeWithQemu('a refusal', () => {
  const backing = { name: 'base', format: 'raw' }
  const REFUSED: CreateOptions[] = [
    { size: MIB, clusterSize: 1000 },
    { size: MIB, clusterSize: 256 },
    { size: MIB, clusterSize: 4 * MIB },
    { size: MIB, clusterSize: 0 },
    { size: MIB, clusterSize: 8192, extendedL2: true },
    { size: MIB, version: 2, extendedL2: true },
    { size: MIB, refcountBits: 3 },
    { size: MIB, refcountBits: 128 },
    { size: MIB, refcountBits: 0 },
    { size: MIB, refcountBits: 8, version: 2 },
    { size: MIB, lazyRefcounts: true, version: 2 },
    { size: MIB, compressionType: 'zstd', version: 2 },
    { size: MIB, compressionType: 'lzo' as 'zlib' },
    { size: MIB, preallocation: 'some' as 'off' },
    { size: MIB, backing, preallocation: 'metadata' },
    { size: MIB, backing, dataFile: { name: 'data', raw: true } },
    { size: MIB, version: 2, dataFile: { name: 'data' } },
    { size: MIB, backing: { name: 'b'.repeat(1024), format: 'raw' } },
    { size: MIB, backing: { name: 'b'.repeat(500), format: 'raw' }, clusterSize: 512 },
    { size: MIB, backing: { name: 'base', format: 'averyveryverylongformat' } },
    { size: MIB, backing: { name: '', format: 'raw' } },
    { size: 3072 * TIB },
    { size: 129 * GIB, clusterSize: 512 },
  ]

  it.each(REFUSED.map((options) => [titleOf(options).slice(0, 100), options] as const))(
    'has the text of qemu-img and leaves the file alone: %s',
    async (_title, options) => {
      const cwd = tempFolder()
      const result = await qemuImg(createArguments('x', options), { cwd })
      expect(result.status).toBe(1)
      const message = result.stderr.replace(/^qemu-img: x: /, '').trimEnd()
      const file = MemoryDevice.from(new Uint8Array(1000).fill(1))
      await expect(createQcow2(file, options)).rejects.toThrow(
        expect.objectContaining({ name: 'UsageError', message }),
      )
      expect(file.toBytes()).toEqual(new Uint8Array(1000).fill(1))
    },
  )

  it('of a data file name that the header cluster cannot hold says so', async () => {
    const file = new MemoryDevice()
    const dataFile = { name: 'd'.repeat(500) }
    await expect(createQcow2(file, { size: MIB, clusterSize: 512, dataFile })).rejects.toThrow(
      'Could not update qcow2 header: No space left on device',
    )
  })
})

describe('creating', () => {
  /** Notes what reaches a device, in order. */
  class Recorder extends MemoryDevice {
    readonly log: { kind: 'write' | 'flush'; offset: number; length: number }[] = []

    override async write(offset: number, source: Uint8Array): Promise<void> {
      this.log.push({ kind: 'write', offset, length: source.length })
      await super.write(offset, source)
    }

    override async flush(): Promise<void> {
      this.log.push({ kind: 'flush', offset: 0, length: 0 })
      await super.flush()
    }
  }

  it.each(['off', 'metadata', 'falloc', 'full'] as const)(
    'writes the first sector last, alone, between two flushes: preallocation %s',
    async (preallocation) => {
      const file = new Recorder()
      await createQcow2(file, { size: 10 * MIB, preallocation })
      expect(file.log.slice(-3)).toEqual([
        { kind: 'flush', offset: 0, length: 0 },
        { kind: 'write', offset: 0, length: 512 },
        { kind: 'flush', offset: 0, length: 0 },
      ])
      const early = file.log
        .slice(0, -3)
        .filter(({ kind, offset }) => kind === 'write' && offset < 512)
      expect(early).toEqual([])
    },
  )

  it('costs what the tables take, whatever the virtual size', async () => {
    const file = new MemoryDevice()
    await createQcow2(file, { size: 2048 * TIB })
    expect(file.size).toBe(3 * 65536 + 32 * MIB)
    expect(file.allocated).toBeLessThanOrEqual(MIB)
  })

  it('replaces what the file held before', async () => {
    const file = MemoryDevice.from(new Uint8Array(MIB).fill(0xee))
    const fresh = new MemoryDevice()
    await createQcow2(file, { size: GIB })
    await createQcow2(fresh, { size: GIB })
    expect(Buffer.compare(file.toBytes(), fresh.toBytes())).toBe(0)
  })

  it('clears what it uses of a device that keeps its size', async () => {
    class Fixed extends MemoryDevice {
      override readonly can = {
        write: true,
        resize: false,
        discard: true,
        fastZeroes: true,
        extents: true,
      }
    }
    const file = new Fixed(4 * MIB)
    await file.write(0, new Uint8Array(4 * MIB).fill(0xee))
    const fresh = new MemoryDevice()
    await createQcow2(file, { size: MIB, preallocation: 'metadata' })
    await createQcow2(fresh, { size: MIB, preallocation: 'metadata' })
    const made = file.toBytes()
    expect(Buffer.compare(made.subarray(0, fresh.size), fresh.toBytes())).toBe(0)
    expect(made[fresh.size]).toBe(0xee)
    const small = new Fixed(65536)
    await expect(createQcow2(small, { size: MIB })).rejects.toMatchObject({
      code: 'DEVICE_TOO_SMALL',
    })
  })

  it('that is aborted leaves a file that is no image', async () => {
    const file = new MemoryDevice()
    const stop = new AbortController()
    const onProgress = () => stop.abort(new Error('enough'))
    await expect(
      createQcow2(file, { size: 8 * MIB, preallocation: 'full', signal: stop.signal, onProgress }),
    ).rejects.toThrow('enough')
    expect(looksLikeQcow2(file.toBytes().subarray(0, 512))).toBe(false)
  })

  it('tells how far the preallocation is', async () => {
    const seen: number[] = []
    await createQcow2(new MemoryDevice(), {
      size: 5 * MIB,
      preallocation: 'falloc',
      onProgress: ({ done, total }) => {
        expect(total).toBe(5 * MIB)
        seen.push(done)
      },
    })
    expect(seen).toEqual([2 * MIB, 4 * MIB, 5 * MIB])
  })

  it('puts everything that may change into sector 0: the feature names come last', async () => {
    const file = new MemoryDevice()
    await createQcow2(file, {
      size: MIB,
      backing: { name: 'base', format: 'qcow2' },
      dataFile: { name: 'data' },
    })
    const header = parseHeader(file.toBytes().subarray(0, 65536))
    expect(header.extensions.map(({ type }) => type)).toEqual([0xe2792aca, 0x44415441, 0x6803f857])
  })

  it.each([-1, 1.5, Number.NaN, Number.MAX_SAFE_INTEGER])('refuses the size %s', async (size) => {
    await expect(createQcow2(new MemoryDevice(), { size })).rejects.toMatchObject({
      name: 'UsageError',
    })
  })
})
