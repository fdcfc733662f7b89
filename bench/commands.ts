/** Contenders that are command lines, and what their results are verified with. */

import { closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Setting } from './bench.ts'
import type { Contender } from './pairs.ts'

/** What a run of a command needs before, and what must hold after it. */
export interface Around {
  readonly prepare?: () => void
  /** Given what the command printed. */
  readonly verify?: (stdout: string) => void
  /** Files and folders that go away after each run. */
  readonly leaves?: readonly string[]
}

/** The whole process of `cowpoint`. */
export function cowpoint(setting: Setting, line: string, around: Around = {}): Contender {
  return otherTool(setting, `cowpoint ${line}`, around)
}

/** The whole process of `qemu-img`. */
export function qemuImg(setting: Setting, line: string, around: Around = {}): Contender {
  return otherTool(setting, `qemu-img ${line}`, around)
}

/** The whole process of any tool; the first word is its name. */
export function otherTool(setting: Setting, line: string, around: Around = {}): Contender {
  const { tools } = setting
  const { prepare, verify, leaves } = around
  let printed = ''
  return {
    command: line,
    ...(prepare === undefined ? {} : { prepare }),
    run() {
      const { ms, stdout } = tools.tool(line)
      printed = stdout
      return ms
    },
    ...(verify === undefined ? {} : { verify: () => verify(printed) }),
    ...(leaves === undefined ? {} : { clear: removing(setting, ...leaves) }),
    async peakMemory() {
      const { stdout, peakMemory } = await tools.watched(line)
      printed = stdout
      return peakMemory
    },
  }
}

/** The physical limit of what goes through tables only: so many bytes of the file read, one MiB at a time. */
export function plainRead({ folder }: Setting, name: string, length: number): Contender {
  return {
    command: `readSync of ${length} bytes, 1 MiB each`,
    run() {
      const buffer = Buffer.alloc(1024 * 1024)
      const file = openSync(join(folder, name), 'r')
      const start = performance.now()
      for (let at = 0; at < length; at += buffer.length) {
        readSync(file, buffer, 0, Math.min(buffer.length, length - at), at)
      }
      const ms = performance.now() - start
      closeSync(file)
      return ms
    },
  }
}

/** The physical limit of what moves so many bytes: the beginning of a file read and written into a new one, one MiB at a time. */
export function plainCopy(setting: Setting, name: string, length: number): Contender {
  const { folder } = setting
  return {
    clear: removing(setting, 'limit.raw'),
    command: `readSync and writeSync of ${length} bytes, 1 MiB each`,
    run() {
      const buffer = Buffer.alloc(1024 * 1024)
      const from = openSync(join(folder, name), 'r')
      const to = openSync(join(folder, 'limit.raw'), 'w')
      const start = performance.now()
      for (let at = 0; at < length; at += buffer.length) {
        const count = readSync(from, buffer, 0, Math.min(buffer.length, length - at), at)
        writeSync(to, buffer, 0, count, at)
      }
      const ms = performance.now() - start
      closeSync(from)
      closeSync(to)
      return ms
    },
  }
}

/** Removes files and folders. */
export function removing({ folder }: Setting, ...names: readonly string[]): () => void {
  return () => {
    for (const name of names) rmSync(join(folder, name), { recursive: true, force: true })
  }
}

/** Throws unless both images read the same, as qemu-img sees it, and the qcow2 one is without fault. */
export function verifySame(setting: Setting, raw: string, image: string, format: string): void {
  const { tools, folder } = setting
  if (statSync(join(folder, image)).size === 0) throw new Error(`${image} is empty`)
  tools.qemuImg(`compare -q -f raw -F ${format} ${raw} ${image}`)
  if (format === 'qcow2') tools.qemuImg(`check -q ${image}`)
}

/** Makes contenders print the same: remembers what the first one printed. */
export function samePrint(what: string): (stdout: string) => void {
  let first: string | undefined
  return (stdout) => {
    first ??= stdout
    if (stdout !== first || stdout === '') throw new Error(`${what} printed something else`)
  }
}
