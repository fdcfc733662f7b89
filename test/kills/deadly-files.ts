/**
 * Takes the place of storage/node-files.ts in the command that kill tests run: the real file system, but at the storage operation that
 * COWPOINT_DEATH names (`number:when:signal`) the process gets a signal. COWPOINT_COUNT is a file for the number of all operations.
 */

import { writeFileSync } from 'node:fs'
import { roundDown } from '../../src/base/bytes.ts'
import { lockRunner } from '../../src/native/index.ts'
import type { FileSystem, OpenFile } from '../../src/storage/files.ts'
import { createNodeFiles } from '../../src/storage/node-files.ts'

const [turn = '', when, signal] = (process.env.COWPOINT_DEATH ?? '').split(':')
const countFile = process.env.COWPOINT_COUNT
let count = 0

if (countFile !== undefined) process.on('exit', () => writeFileSync(countFile, String(count)))

function die(): void {
  process.kill(process.pid, signal)
}

/** Does an operation; `half` is what a write does that is cut off. */
function operation<T>(work: () => T, half?: () => unknown): T {
  const isLast = count++ === Number(turn) && turn !== ''
  if (!isLast) return work()
  if (when === 'half') half?.()
  if (when !== 'after') die()
  const result = work()
  if (when !== 'after') return result
  if (!(result instanceof Promise)) die()
  else {
    return result.then((value: unknown) => {
      die()
      return value
    }) as T
  }
  return result
}

const SECTOR_SIZE = 512

const FILE_OPERATIONS = [
  ...['writeSync', 'write', 'truncate', 'sync', 'punchHole', 'zeroRange', 'reserve', 'copyRange'],
  ...['shareRange', 'lock', 'close'],
] as const
const NAME_OPERATIONS = [
  ...['link', 'rename', 'unlink', 'makeFolder', 'removeFolder', 'syncFolder'],
] as const

type Call = (...args: unknown[]) => unknown

/** The calls of the object itself are kept: it may know itself by its class. */
function watch(target: object, names: readonly string[]): void {
  const calls = target as Record<string, Call | undefined>
  for (const name of names) {
    const call = calls[name]
    if (call === undefined) continue
    const all = call.bind(target) as Call
    calls[name] = (...args) => operation(() => all(...args), halfOf(name, args, target))
  }
}

function halfOf(name: string, args: readonly unknown[], target: object): (() => void) | undefined {
  if (name !== 'write' && name !== 'writeSync') return undefined
  const [source, position] = args as [Uint8Array, number]
  const file = Object.getPrototypeOf(target) as OpenFile
  // No kill tears a sector: the kernel takes bytes by the page.
  const end = roundDown(position + Math.floor(source.length / 2), SECTOR_SIZE)
  return () => {
    if (end > position) file.writeSync.call(target, source.subarray(0, end - position), position)
  }
}

function deadly(files: FileSystem): FileSystem {
  const watched: FileSystem = { ...files }
  watch(watched, NAME_OPERATIONS)
  watched.open = async (path, mode) => {
    const open = async (): Promise<OpenFile> => {
      const file = await files.open(path, mode)
      if (file.writable) watch(file, FILE_OPERATIONS)
      return file
    }
    return mode === 'read' ? open() : operation(open)
  }
  return watched
}

/** The file system of this host, and of this process's end. */
export const nodeFiles: FileSystem = deadly(createNodeFiles(lockRunner))
export { createNodeFiles }
