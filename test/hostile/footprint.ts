/**
 * What an inspection takes as the process that a user starts: its largest memory over that of bare Node, as the kernel counts both,
 * and its processor time.
 */

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { bundleCli } from '../../scripts/bundle.ts'
import { AMPLIFIERS } from './amplifiers.ts'
import { mutationKey, mutationOf, seedImages } from './cases.ts'

/** A case, and how its file is made in a folder. */
export interface FootprintCase {
  readonly name: string
  readonly make: (folder: string) => string | Promise<string>
}

/** An image whose bytes are all there, so that much of it has to be looked at. */
function heavy(
  folder: string,
  size: number,
  fill: (image: Buffer, word: (at: number, value: number | bigint) => void) => void,
): string {
  const image = Buffer.alloc(size)
  const word = (at: number, value: number | bigint): void => {
    image.writeBigUInt64BE(BigInt(value), at)
  }
  image.write('QFI\xfb', 'latin1')
  image.writeUInt32BE(3, 4)
  image.writeUInt32BE(4, 96)
  image.writeUInt32BE(104, 100)
  fill(image, word)
  const path = join(folder, 'heavy.qcow2')
  writeFileSync(path, image)
  return path
}

const COPIED = 1n << 63n

/** Clusters of 512 bytes, and so many L1 entries from 0x1000 on. */
function claimTables(image: Buffer, word: (at: number, value: number) => void, count: number) {
  image.writeUInt32BE(9, 20)
  word(24, count * 32 * 1024)
  image.writeUInt32BE(count, 36)
  word(40, 0x1000)
  word(48, 512)
  image.writeUInt32BE(1, 56)
}

/** Images that ask for much of what an inspection may read and remember. */
export const HEAVY: readonly FootprintCase[] = [
  {
    name: '100,000 L2 tables of 512 bytes',
    make: (folder) =>
      heavy(folder, 53 * 2 ** 20, (image, word) => {
        const count = 100_000
        claimTables(image, word, count)
        for (let index = 0; index < count; index++) {
          word(0x1000 + 8 * index, COPIED | BigInt(0x100000 + 512 * index))
        }
      }),
  },
  {
    name: '3,000,000 data clusters of 512 bytes, all of them past the end',
    make: (folder) =>
      heavy(folder, 30 * 2 ** 20, (image, word) => {
        const count = 46_000
        claimTables(image, word, count)
        for (let index = 0; index < count; index++) {
          const table = 0x100000 + 512 * index
          word(0x1000 + 8 * index, COPIED | BigInt(table))
          for (let entry = 0; entry < 64; entry++) {
            const place = (1n << 32n) + BigInt(512 * (64 * index + entry))
            word(table + 8 * entry, COPIED | place)
          }
        }
      }),
  },
  {
    name: '4000 snapshots with names of 14,000 bytes',
    make: (folder) =>
      heavy(folder, 60 * 2 ** 20, (image, word) => {
        image.writeUInt32BE(16, 20)
        word(24, 2 ** 20)
        image.writeUInt32BE(1, 36)
        word(40, 0x30000)
        word(48, 0x10000)
        image.writeUInt32BE(1, 56)
        image.writeUInt32BE(4000, 60)
        word(64, 0x40000)
        const [nameSize, extraSize] = [14_000, 16]
        const length = Math.ceil((40 + extraSize + 4 + nameSize) / 8) * 8
        for (let index = 0; index < 4000; index++) {
          const at = 0x40000 + length * index
          word(at, 0x30000)
          image.writeUInt32BE(1, at + 8)
          image.writeUInt16BE(4, at + 12)
          image.writeUInt16BE(nameSize, at + 14)
          image.writeUInt32BE(extraSize, at + 36)
          word(at + 40 + 8, 2 ** 20)
          image.write(String(index).padStart(4, '0'), at + 40 + extraSize)
          image.fill(
            0x61 + (index % 26),
            at + 60 + extraSize - 16 + 16,
            at + 60 + extraSize + nameSize,
          )
        }
      }),
  },
]

/** All amplifiers, and so many mutations of a seed. */
export async function footprintCases(seed: number, count: number): Promise<FootprintCase[]> {
  const seeds = await seedImages()
  const mutations = Array.from({ length: count }, (_, index) => ({
    name: mutationKey(seed, index),
    make: (folder: string) => {
      const path = join(folder, 'mutation.qcow2')
      writeFileSync(path, mutationOf(seeds, seed, index))
      return path
    },
  }))
  return [...AMPLIFIERS, ...HEAVY, ...mutations]
}

/** What a process took. */
export interface Footprint {
  readonly status: number
  /** Bytes over bare Node. */
  readonly memory: number
  /** Processor time over bare Node. */
  readonly timeMs: number
  readonly stdout: string
}

interface Taken {
  readonly memory: number
  readonly timeMs: number
}

/** The command, bundled, and what bare Node takes. */
export class Inspector implements Disposable {
  readonly #folder: string
  #bare: Taken = { memory: 0, timeMs: 0 }

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Bundles the command, and measures Node doing nothing. */
  static async create(): Promise<Inspector> {
    // Inside node_modules, so that the packages which the bundle leaves outside are found.
    const caches = resolve(import.meta.dirname, '../../node_modules/.cache')
    mkdirSync(caches, { recursive: true })
    const inspector = new Inspector(mkdtempSync(join(caches, 'footprint-')))
    await bundleCli(inspector.#folder)
    writeFileSync(inspector.#meter, METER)
    for (let round = 0; round < 3; round++) {
      const { memory, timeMs } = await inspector.#run(['-e', ''])
      if (round === 0 || memory < inspector.#bare.memory) inspector.#bare = { memory, timeMs }
    }
    return inspector
  }

  get #meter(): string {
    return join(this.#folder, 'meter.cjs')
  }

  /** What bare Node takes. */
  get bare(): number {
    return this.#bare.memory
  }

  /** Inspects one image. */
  async inspect(make: FootprintCase['make']): Promise<Footprint> {
    const folder = mkdtempSync(join(this.#folder, 'case-'))
    try {
      const path = await make(folder)
      const main = join(this.#folder, 'main.js')
      const taken = await this.#run([main, 'inspect', '--output=json', path])
      return {
        ...taken,
        memory: taken.memory - this.#bare.memory,
        timeMs: taken.timeMs - this.#bare.timeMs,
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }

  async #run(words: readonly string[]): Promise<Footprint> {
    const child = spawn(process.execPath, ['--require', this.#meter, ...words], {
      stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
    })
    let [stdout, told] = ['', '']
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout += chunk
    })
    child.stdio[3]?.on('data', (chunk: Buffer) => {
      told += chunk
    })
    const status = await new Promise<number>((done, failed) => {
      child.on('error', failed)
      child.on('close', (code) => done(code ?? -1))
    })
    return { ...(JSON.parse(told) as Taken), status, stdout }
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Tells at the end of a process what the kernel counted. */
const METER = `process.on('exit', () => {
  const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage()
  const told = { memory: maxRSS * 1024, timeMs: (userCPUTime + systemCPUTime) / 1000 }
  require('node:fs').writeSync(3, JSON.stringify(told))
})
`
