/** The real file system with a list of what was asked of it: to show that an untrusted image leads to no other file. */

import type { FileSystem } from '../../src/storage/index.ts'
import { nodeFiles } from '../../src/storage/index.ts'

/** What was asked of a file system. */
export interface Recording {
  readonly files: FileSystem
  /** `mode path` for each file that was opened. */
  readonly opened: string[]
  /** Paths of everything else, and what was asked of them. */
  readonly asked: string[]
}

/** A file system that notes every path before it asks the real one. */
export function recordingFiles(): Recording {
  const opened: string[] = []
  const asked: string[] = []
  const note = <A extends readonly unknown[], R>(name: string, call: (...args: A) => R) => {
    return (...args: A): R => {
      asked.push(`${name} ${String(args[0])}`)
      return call(...args)
    }
  }
  const files: FileSystem = {
    open(path, mode) {
      opened.push(`${mode} ${path}`)
      return nodeFiles.open(path, mode)
    },
    stat: note('stat', nodeFiles.stat),
    list: note('list', nodeFiles.list),
    realpath: note('realpath', nodeFiles.realpath),
    link: note('link', nodeFiles.link),
    rename: note('rename', nodeFiles.rename),
    unlink: note('unlink', nodeFiles.unlink),
    makeFolder: note('makeFolder', nodeFiles.makeFolder),
    removeFolder: note('removeFolder', nodeFiles.removeFolder),
    syncFolder: note('syncFolder', nodeFiles.syncFolder),
  }
  return { files, opened, asked }
}
