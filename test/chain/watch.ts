/** What tests of chains look at: the content of a chain, and which files it opens and closes. */

import { basename } from 'node:path'
import type { Chain } from '../../src/chain/index.ts'
import { type FileSystem, nodeFiles } from '../../src/storage/index.ts'

/** All bytes of the disk. */
export async function readAll(chain: Chain): Promise<Buffer> {
  const bytes = Buffer.alloc(chain.device.size)
  await chain.device.read(0, bytes)
  return bytes
}

/** The file system, counting what is open and noting what was opened. */
export function watched(): FileSystem & { readonly opened: string[]; openCount(): number } {
  const opened: string[] = []
  let openCount = 0
  return {
    ...nodeFiles,
    opened,
    openCount: () => openCount,
    async open(path, mode) {
      const file = await nodeFiles.open(path, mode)
      opened.push(`${mode} ${basename(path)}`)
      openCount++
      let closed = false
      const close = file.close.bind(file)
      file.close = async () => {
        if (!closed) openCount--
        closed = true
        await close()
      }
      return file
    },
  }
}
