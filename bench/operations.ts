/** Many single reads or writes in a fixed scattered order: the same for `qemu-img bench` and for the library. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { alignedBytes } from '../src/base/aligned.ts'
import type { Setting } from './bench.ts'
import type { Contender } from './pairs.ts'

/** Which operations. */
export interface Pattern {
  /** Of the disk. */
  readonly size: number
  readonly blockSize: number
  /** From one operation to the next, in bytes. */
  readonly step: number
  /** Where `qemu-img bench` begins again from the front. */
  readonly wrap: number
  readonly count: number
}

/** What to ask `pattern` for. */
export interface PatternWish extends Pick<Pattern, 'size' | 'blockSize' | 'count'> {
  /** Left out: one that leads through all of the disk in no visible order. */
  readonly step?: number
}

/** A pattern as this `qemu-img bench` goes through it. */
export function pattern(setting: Setting, wish: PatternWish): Pattern {
  const { size, blockSize } = wish
  const wrap = wrapsEarly(setting) ? size - blockSize : size
  return { ...wish, wrap, step: wish.step ?? scatteringStep(wrap, blockSize) }
}

/** Since QEMU 10.1 the last block is left out; before, an image was gone through to its end. */
function wrapsEarly({ tools, folder }: Setting): boolean {
  const disk = join(folder, 'wrap.raw')
  writeFileSync(disk, Buffer.alloc(8192))
  tools.qemuImg('bench -w --pattern=1 -f raw -c 2 -d 1 -s 4096 -S 4096 wrap.raw')
  return readFileSync(disk)[4096] === 0
}

function scatteringStep(wrap: number, blockSize: number): number {
  const blockCount = wrap / blockSize
  let step = Math.floor(blockCount * 0.618)
  while (greatestCommonDivisor(step, blockCount) !== 1) step++
  return step * blockSize
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b)
}

/** The offsets, in order. */
export function sequence({
  wrap,
  step,
  count,
}: Pick<Pattern, 'wrap' | 'step' | 'count'>): number[] {
  return Array.from({ length: count }, (_, index) => (index * step) % wrap)
}

/** `qemu-img bench`; the time is the one that it prints, which leaves out its start. */
export function qemuBench(
  { tools }: Setting,
  image: string,
  { blockSize, step, count }: Pattern,
  options: {
    readonly depth: number
    readonly write?: boolean
    readonly prepare?: () => void
    readonly verify?: () => void
  },
): Contender {
  const write = options.write ? `-w --pattern=${WRITTEN} ` : ''
  const line = `bench ${write}-f qcow2 -c ${count} -d ${options.depth} -s ${blockSize} -S ${step} ${image}`
  return {
    command: `qemu-img ${line}`,
    ...(options.prepare === undefined ? {} : { prepare: options.prepare }),
    run() {
      const { stdout } = tools.qemuImg(line)
      const seconds = /completed in ([\d.]+) seconds/.exec(stdout)?.[1]
      if (seconds === undefined) throw new Error(`qemu-img bench printed no time: ${stdout}`)
      return (Math.max(Number(seconds), 0.0005) * 1e6) / count
    },
    ...(options.verify === undefined ? {} : { verify: options.verify }),
  }
}

/** Memory that begins at a page, as `qemu-img bench` takes it: the kernel copies into it at another speed than anywhere else. */
export function alignedBuffer(length: number): Buffer {
  const bytes = alignedBytes(length)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** The byte that writes consist of. */
export const WRITTEN = 0xa5
