/** Lists of digests as sha256sum and its like write them: a digest, two blanks or a blank and a star, and a name. */

import { createHash } from 'node:crypto'
import { ImageError } from '../../base/errors.ts'
import type { DigestAlgorithm } from '../../block/index.ts'
import { nodeFiles, readSmallFile } from '../../storage/index.ts'
import type { Context } from '../context.ts'
import { stdinChunks } from './stdin-chunks.ts'

/** One line of a list. */
export interface ListedDigest {
  /** As hex. */
  readonly digest: string
  readonly name: string
}

const SIZE_LIMIT = 16 * 1024 * 1024

/** The line for a digest; a name with line ends or backslashes in it is escaped, which a backslash in front says. */
export function listLine({ digest, name }: ListedDigest): string {
  const escaped = name.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\r', '\\r')
  return escaped === name ? `${digest}  ${name}` : `\\${digest}  ${escaped}`
}

/**
 * Reads the list at `path`; `-` is standard input. Throws an ImageError, code `DIGEST_LIST`, for a line that is none of such a
 * list, or of another algorithm, and for a list without lines.
 */
export async function readList(
  path: string,
  algorithm: DigestAlgorithm,
  context: Context,
): Promise<readonly ListedDigest[]> {
  const text = path === '-' ? await stdinText(context) : await fileText(path)
  const lines = text.split('\n').map((line) => line.replace(/\r$/, ''))
  const digits = createHash(algorithm).digest('hex').length
  const list: ListedDigest[] = []
  for (const [index, line] of lines.entries()) {
    if (line === '') continue
    const found = parseLine(line)
    if (found === undefined || found.digest.length !== digits) {
      throw new ImageError('DIGEST_LIST', `line ${index + 1} is no ${algorithm} digest and name`, {
        context: { line: index + 1, algorithm },
      })
    }
    list.push(found)
  }
  if (list.length === 0) throw new ImageError('DIGEST_LIST', 'list has no digests')
  return list
}

function parseLine(line: string): ListedDigest | undefined {
  const [, mark, digest, name] = /^(\\?)([0-9a-fA-F]+) [ *](.+)$/.exec(line) ?? []
  if (digest === undefined || name === undefined) return undefined
  if (mark === '') return { digest, name }
  const plain = name.replace(/\\([nr\\])/g, (_, letter: string) =>
    letter === 'n' ? '\n' : letter === 'r' ? '\r' : '\\',
  )
  return { digest, name: plain }
}

async function fileText(path: string): Promise<string> {
  return Buffer.from(await readSmallFile(nodeFiles, path, SIZE_LIMIT)).toString()
}

async function stdinText(context: Context): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of stdinChunks(context)) {
    size += chunk.length
    if (size > SIZE_LIMIT) {
      throw new ImageError('FILE_TOO_LARGE', `list is above ${SIZE_LIMIT} bytes`)
    }
    chunks.push(Buffer.from(chunk))
  }
  return Buffer.concat(chunks).toString()
}
