/**
 * A file system that does as another one, except that calls fail or fall short when told to; it
 * also counts.
 */

import type { FileSystem, OpenFile, OpenMode } from '../../src/storage/index.ts'

type Call = 'read' | 'write' | 'sync' | 'rename' | 'lock'

export class FaultyFiles implements FileSystem {
  longestTransfer = Number.POSITIVE_INFINITY
  openCount = 0
  readonly syncs: ('all' | 'data')[] = []
  readonly #under: FileSystem
  #next: { readonly call: Call; readonly errno: string; passCount: number } | undefined

  constructor(under: FileSystem) {
    this.#under = under
  }

  /** Makes the next call of that kind fail. */
  failNext(call: Call, errno: string): void {
    this.failAfter(call, 0, errno)
  }

  /** Makes a call of that kind fail after so many that pass. */
  failAfter(call: Call, passCount: number, errno: string): void {
    this.#next = { call, errno, passCount }
  }

  /** Throws where the call was to fail. */
  pass(call: Call): void {
    if (this.#next?.call !== call || this.#next.passCount-- > 0) return
    const { errno } = this.#next
    this.#next = undefined
    throw Object.assign(new Error(`${errno}: made up`), { code: errno })
  }

  async open(path: string, mode: OpenMode): Promise<OpenFile> {
    const file = await this.#under.open(path, mode)
    this.openCount++
    return wrap(this, file)
  }

  stat = (path: string) => this.#under.stat(path)
  list = (folder: string) => this.#under.list(folder)
  realpath = (path: string) => this.#under.realpath(path)
  link = (existing: string, added: string) => this.#under.link(existing, added)
  rename = async (from: string, to: string) => {
    this.pass('rename')
    await this.#under.rename(from, to)
  }
  unlink = (path: string) => this.#under.unlink(path)
  makeFolder = (path: string, options?: { parents?: boolean }) =>
    this.#under.makeFolder(path, options)
  removeFolder = (path: string) => this.#under.removeFolder(path)
  syncFolder = (path: string) => this.#under.syncFolder(path)
}

function wrap(files: FaultyFiles, file: OpenFile): OpenFile {
  const cut = (bytes: Uint8Array) => bytes.subarray(0, files.longestTransfer)
  return {
    path: file.path,
    writable: file.writable,
    stat: () => file.stat(),
    readSync: (target, position) => {
      files.pass('read')
      return file.readSync(cut(target), position)
    },
    writeSync: (source, position) => {
      files.pass('write')
      return file.writeSync(cut(source), position)
    },
    read: async (target, position) => {
      files.pass('read')
      return file.read(cut(target), position)
    },
    write: async (source, position) => {
      files.pass('write')
      return file.write(cut(source), position)
    },
    truncate: (size) => file.truncate(size),
    sync: async (options) => {
      files.pass('sync')
      files.syncs.push(options?.dataOnly ? 'data' : 'all')
      await file.sync(options)
    },
    punchHole: (offset, length) => file.punchHole(offset, length),
    zeroRange: (offset, length) => file.zeroRange(offset, length),
    reserve: (offset, length) => file.reserve(offset, length),
    nextData: (offset) => file.nextData(offset),
    nextHole: (offset) => file.nextHole(offset),
    ...(file.lock === undefined
      ? {}
      : {
          lock: async (kind, group) => {
            files.pass('lock')
            return (await file.lock?.(kind, group)) ?? false
          },
        }),
    close: async () => {
      files.openCount--
      await file.close()
    },
  }
}
