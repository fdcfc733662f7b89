/**
 * Whether QEMU reads from a damaged image what we read. Where only one of the two reads it, or they read different bytes, the difference
 * must be one of those listed here, each with its reason.
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CowpointError } from '../../src/base/errors.ts'
import { contentDigest } from '../../src/block/index.ts'
import { Gate, openChain } from '../../src/chain/index.ts'

/** Differences that are meant, by our code; for these we refuse what QEMU reads. */
export const STRICTER: Readonly<Record<string, string>> = {
  OUTSIDE_FILE: 'QEMU reads zeroes where a table or a cluster begins past the end of the file',
  SNAPSHOT_TABLE: 'QEMU reads entries past the end of the file as zeroes, snapshots without a name',
  TABLE_UNALIGNED: 'QEMU looks at the L1 table of a snapshot only when the snapshot is used',
  L1_TABLE: 'the same',
  HEADER_FIELD: 'an offset above 2^53 lies past the end of any file, where QEMU reads zeroes',
  INVALID_LOCATION: 'QEMU cuts a backing name at a NUL, and opens what is left',
}

/** Whether the two agree, or differ as they are meant to. */
export function isMeant(agreement: Agreement): boolean {
  if (agreement.kind === 'stricter') return Object.hasOwn(STRICTER, agreement.detail)
  if (agreement.kind === 'laxer') return LAXER.some(({ says }) => says.test(agreement.detail))
  return agreement.kind !== 'differ'
}

/** Differences that are meant, by what QEMU says; these we read where QEMU refuses. */
export const LAXER: readonly { readonly says: RegExp; readonly why: string }[] = [
  {
    says: /bitmap/i,
    why: 'bitmaps are read when they are asked for, and do not keep data from being read',
  },
  { says: /Snapshot table offset invalid/, why: 'without snapshots it means nothing' },
  { says: /does not contain a reference count table/, why: 'reading needs no refcounts' },
  {
    says: /Header extension too large/,
    why: 'fewer than 8 bytes at the end of the cluster are no extension',
  },
]

/** How the two went. */
export type Agreement =
  | { readonly kind: 'same' | 'both-refuse' | 'too-large' }
  | { readonly kind: 'stricter' | 'laxer' | 'differ'; readonly detail: string }

const LARGEST = 64 * 1024 * 1024

/** Reads the image with both. Leaves nothing in `folder`. */
export async function compareWithQemu(bytes: Uint8Array, folder: string): Promise<Agreement> {
  const path = join(folder, 'image.qcow2')
  const raw = join(folder, 'image.raw')
  writeFileSync(path, bytes)
  try {
    const ours = await readOurs(path)
    if (ours === 'too-large') return { kind: 'too-large' }
    const theirs = await readTheirs(path, raw)
    if ('failure' in ours) {
      if ('failure' in theirs) return { kind: 'both-refuse' }
      return { kind: 'stricter', detail: ours.failure }
    }
    if ('failure' in theirs) return { kind: 'laxer', detail: theirs.failure }
    return ours.digest === theirs.digest
      ? { kind: 'same' }
      : { kind: 'differ', detail: 'the bytes differ' }
  } finally {
    for (const file of [path, raw]) rmSync(file, { force: true })
  }
}

type Reading = { readonly digest: string } | { readonly failure: string }

async function readOurs(path: string): Promise<Reading | 'too-large'> {
  try {
    await using chain = await openChain(path, {
      format: 'qcow2',
      gate: new Gate({ allowAll: true }),
    })
    if (chain.device.size > LARGEST) return 'too-large'
    return { digest: await contentDigest(chain.device) }
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return { failure: error.code }
  }
}

async function readTheirs(path: string, raw: string): Promise<Reading> {
  try {
    await promisify(execFile)('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw], {
      timeout: 10_000,
    })
  } catch (error) {
    const text = String((error as { stderr?: string }).stderr ?? error)
    return { failure: text.split('\n')[0]?.replace(/^.*?image\.qcow2'?: /, '') ?? '' }
  }
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(raw)) hash.update(chunk as Buffer)
  return { digest: hash.digest('hex') }
}
