/** The figures of `measure` against those of `qemu-img measure`, over options and inputs. */

import { closeSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { Extent } from '../../src/block/index.ts'
import {
  luksHeaderLength,
  type MeasureOptions,
  measureQcow2,
  measureRaw,
} from '../../src/qcow2/measure.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { suiteFolder } from '../support/temp.ts'

const MIB = 1024 ** 2
const GIB = 1024 ** 3
const TIB = 1024 ** 4

type Format = Pick<
  MeasureOptions,
  'version' | 'clusterSize' | 'refcountBits' | 'extendedL2' | 'preallocation' | 'backing'
>

function formatArguments(format: Format): string[] {
  const keys = [
    format.version === 2 ? ['compat=0.10'] : [],
    format.clusterSize === undefined ? [] : [`cluster_size=${format.clusterSize}`],
    format.refcountBits === undefined ? [] : [`refcount_bits=${format.refcountBits}`],
    format.extendedL2 === true ? ['extended_l2=on'] : [],
    format.preallocation === undefined ? [] : [`preallocation=${format.preallocation}`],
    format.backing === true ? ['backing_file=base'] : [],
  ].flat()
  return keys.length === 0 ? [] : ['-o', keys.join(',')]
}

interface Figures {
  readonly required: number
  readonly 'fully-allocated': number
  readonly bitmaps?: number
}

async function measuredByQemu(args: readonly string[], target = 'qcow2') {
  const text = await qemuImgOk(['measure', '--output=json', '-O', target, ...args])
  const figures: Figures = JSON.parse(text)
  return {
    required: figures.required,
    fullyAllocated: figures['fully-allocated'],
    bitmaps: figures.bitmaps,
  }
}

const FORMATS: Format[] = [
  {},
  { version: 2 },
  { clusterSize: 512 },
  { clusterSize: 512, refcountBits: 64 },
  { clusterSize: 4096, refcountBits: 1 },
  { clusterSize: 2 * MIB },
  { clusterSize: 2 * MIB, refcountBits: 64, extendedL2: true },
  { clusterSize: 16384, extendedL2: true },
  { preallocation: 'metadata' },
  { preallocation: 'falloc' },
  { preallocation: 'full', clusterSize: 8192 },
  { backing: true },
]

const SIZES = [0, 512, 1000, MIB, 100 * MIB + 512, 5 * GIB, 64 * GIB, 2 * TIB, 64 * TIB]

describeWithQemu('measuring a size', () => {
  it.each(FORMATS.map((format) => [JSON.stringify(format), format] as const))(
    'gives what qemu-img gives, refusals included: %s',
    async (_title, format) => {
      for (const size of SIZES) {
        const args = ['measure', '--output=json', '-O', 'qcow2', ...formatArguments(format)]
        const result = await qemuImg([...args, '--size', String(size)])
        if (result.status === 0) {
          const figures: Figures = JSON.parse(result.stdout)
          expect({ size, ...(await measureQcow2({ ...format, size })) }).toEqual({
            size,
            required: figures.required,
            fullyAllocated: figures['fully-allocated'],
            bitmaps: undefined,
          })
        } else {
          const message = result.stderr.replace(/^qemu-img: /, '').trimEnd()
          await expect(measureQcow2({ ...format, size })).rejects.toThrow(
            expect.objectContaining({ name: 'UsageError', message }),
          )
        }
      }
    },
  )

  it.each([0, 1, 1000, MIB])('as raw gives whole sectors: %s', async (size) => {
    expect(measureRaw({ size })).toEqual(await measuredByQemu(['--size', String(size)], 'raw'))
  })

  it('counts the LUKS header', async () => {
    const keys = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4096'
    const secret = ['--object', 'secret,id=s,data=abc']
    const theirs = await measuredByQemu([...secret, '-o', keys, '--size', '1G'])
    expect(
      await measureQcow2({ size: GIB, clusterSize: 4096, luksHeaderLength: luksHeaderLength() }),
    ).toEqual(theirs)
  })

  it.each([
    { clusterSize: 1000 },
    { clusterSize: 8192, extendedL2: true },
    { refcountBits: 5 },
    { refcountBits: 8, version: 2 as const },
  ])('refuses $clusterSize $refcountBits with the text of qemu-img', async (format) => {
    const result = await qemuImg([
      'measure',
      '-O',
      'qcow2',
      ...formatArguments(format),
      '--size',
      '1M',
    ])
    expect(result.status).toBe(1)
    await expect(measureQcow2({ ...format, size: MIB })).rejects.toThrow(
      result.stderr.replace(/^qemu-img: /, '').trimEnd(),
    )
  })
})

/** A source whose extents are what `qemu-img map` says about `path`. */
async function mappedSource(path: string): Promise<NonNullable<MeasureOptions['source']>> {
  const runs = JSON.parse(await qemuImgOk(['map', '--output=json', path])) as {
    start: number
    length: number
    zero: boolean
  }[]
  const last = runs.at(-1)
  const extents = async (offset: number, length: number): Promise<readonly Extent[]> =>
    runs
      .filter((run) => run.start < offset + length && run.start + run.length > offset)
      .slice(0, 2) // a device may stop short
      .map((run) => {
        const start = Math.max(run.start, offset)
        const end = Math.min(run.start + run.length, offset + length)
        return { offset: start, length: end - start, kind: run.zero ? 'zero' : 'data' }
      })
  return { size: last === undefined ? 0 : last.start + last.length, extents }
}

describeWithQemu('measuring what an image holds', () => {
  const folder = suiteFolder()
  const qcow2 = join(folder, 'disk.qcow2')
  const raw = join(folder, 'disk.raw')

  beforeAll(async () => {
    await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', qcow2, '50000000'])
    await qemuIoOk(qcow2, [
      'write 0 4k',
      'write 60k 8k',
      'write 1M 100k',
      'write -z 20M 1M',
      'write -c 30M 4k',
      'write 49999872 64',
    ])
    writeFileSync(raw, '')
    truncateSync(raw, 10 * MIB + 1)
    const file = openSync(raw, 'r+')
    for (const [offset, length] of [
      [0, 4096],
      [MIB - 4096, 8192],
      [3 * MIB + 4096, 65536],
      [10 * MIB, 1],
    ] as const) {
      writeSync(file, Buffer.alloc(length, 1), 0, length, offset)
    }
    closeSync(file)
  })

  it.each(FORMATS.map((format) => [JSON.stringify(format), format] as const))(
    'gives what qemu-img gives for a qcow2 source: %s',
    async (_title, format) => {
      const source = await mappedSource(qcow2)
      expect(await measureQcow2({ ...format, source, bitmaps: [] })).toEqual(
        await measuredByQemu([...formatArguments(format), qcow2]),
      )
      expect(measureRaw({ source })).toEqual(await measuredByQemu([qcow2], 'raw'))
    },
  )

  it.each([512, 4096, 65536, MIB])(
    'counts a cluster of %s bytes once however many holes a raw source has in it',
    async (clusterSize) => {
      const source = await FileDevice.open(nodeFiles, raw, { sizeMultiple: 512 })
      const theirs = await measuredByQemu([...formatArguments({ clusterSize }), '-f', 'raw', raw])
      expect(await measureQcow2({ clusterSize, source })).toEqual(theirs)
      await source.close()
    },
  )

  it('counts the bitmaps of the source, but not those that are inconsistent', async () => {
    const path = join(folder, 'bitmaps.qcow2')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', path, '1G'])
    await qemuImgOk(['bitmap', '--add', path, 'täglich'])
    await qemuImgOk(['bitmap', '--add', '--disable', '-g', '512', path, 'fein'])
    const source = await mappedSource(path)
    const bitmaps = [
      { name: 'täglich', granularityBits: 16, inUse: false },
      { name: 'fein', granularityBits: 9, inUse: false },
    ]
    for (const clusterSize of [512, 4096, 65536, 2 * MIB]) {
      expect(await measureQcow2({ clusterSize, source, bitmaps })).toEqual(
        await measuredByQemu([...formatArguments({ clusterSize }), path]),
      )
    }
    const broken = [...bitmaps, { name: 'broken', granularityBits: 9, inUse: true }]
    expect(await measureQcow2({ source, bitmaps: broken })).toEqual(
      await measureQcow2({ source, bitmaps }),
    )
    expect((await measureQcow2({ source, bitmaps, version: 2 })).bitmaps).toBeUndefined()
  })
})

describe('measuring', () => {
  it.each([
    ['aes-256', 'xts', 2068480],
    ['aes-128', 'xts', 1052672],
    ['serpent-256', 'cbc', 1052672],
    ['twofish-128', 'xts', 1052672],
    ['cast5-128', 'cbc', 528384],
  ] as const)('knows how long a LUKS header is: %s in %s', (cipher, mode, length) => {
    expect(luksHeaderLength(cipher, mode)).toBe(length)
  })

  it('refuses a cipher that LUKS does not have', () => {
    expect(() => luksHeaderLength('rot-13')).toThrow("does not accept value 'rot-13'")
  })

  it('stops when it is told to', async () => {
    const source = {
      size: 64 * TIB,
      extents: async (offset: number): Promise<readonly Extent[]> => [
        { offset, length: 512, kind: 'data' },
      ],
    }
    await expect(measureQcow2({ source, signal: AbortSignal.timeout(20) })).rejects.toMatchObject({
      name: 'TimeoutError',
    })
  })

  it.each([-1, 0.5, Number.NaN])('refuses the size %s', async (size) => {
    await expect(measureQcow2({ size })).rejects.toMatchObject({ code: 'INVALID_SIZE' })
  })
})
