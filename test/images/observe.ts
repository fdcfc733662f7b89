/** What the real tools say of an image: content digests, check verdicts, bitmaps, how each verb ends. */

import { createHash } from 'node:crypto'
import { createReadStream, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type {
  CheckVerdict,
  DirtyRange,
  ManifestBitmap,
  ManifestSnapshot,
  Outcome,
} from '../support/image-matrix.ts'
import { qemuImg, qemuImgOk, qemuIo, qemuNbd, type ToolResult } from '../support/qemu.ts'

/** The parts of `qemu-img info --output=json` that the manifest wants. */
export interface ImageInfo {
  readonly 'virtual-size': number
  readonly snapshots?: readonly {
    readonly id: string
    readonly name: string
    readonly 'vm-state-size': number
  }[]
  readonly 'format-specific'?: {
    readonly data?: {
      readonly bitmaps?: readonly {
        readonly name: string
        readonly granularity: number
        readonly flags: readonly string[]
      }[]
    }
  }
}

/** Long enough for any image here; qemu-img 7.2 follows a loop of backing files for ever. */
const LIMIT = { timeoutMs: 8000 }

/** Exit status and first complaint. */
function outcome(result: ToolResult): Outcome {
  if (result.signal === 'SIGKILL') return { status: -1, complaint: 'does not end' }
  const complaint = result.stderr.trim().split('\n')[0] ?? ''
  if (result.signal !== null) return { status: -1, complaint: `${result.signal}: ${complaint}` }
  return { status: result.status, complaint }
}

/** `qemu-img info`: how it ended, and what it said if it worked. */
export async function observeInfo(
  cwd: string,
  file: string,
): Promise<Outcome & { readonly info?: ImageInfo }> {
  const result = await qemuImg(['info', '-f', 'qcow2', '--output=json', file], { cwd, ...LIMIT })
  if (result.status !== 0) return outcome(result)
  return { ...outcome(result), info: JSON.parse(result.stdout) as ImageInfo }
}

/** Opening for reading, or for writing (which may change the image), and nothing else. */
export async function observeOpen(
  cwd: string,
  file: string,
  mode: 'read' | 'write',
): Promise<Outcome> {
  const options = { cwd, format: 'qcow2', readOnly: mode === 'read', ...LIMIT }
  return outcome(await qemuIo(file, ['length'], options))
}

/** `qemu-img check`: how it ended, and its counts if it got so far. */
export async function observeCheck(
  cwd: string,
  file: string,
): Promise<Outcome & { readonly verdict?: CheckVerdict }> {
  const result = await qemuImg(['check', '-f', 'qcow2', '--output=json', file], { cwd, ...LIMIT })
  if (!result.stdout.startsWith('{')) return outcome(result)
  const json = JSON.parse(result.stdout) as Record<string, number>
  const verdict: CheckVerdict = {
    status: result.status,
    leaks: json.leaks ?? 0,
    corruptions: json.corruptions ?? 0,
    checkErrors: json['check-errors'] ?? 0,
    allocatedClusters: json['allocated-clusters'] ?? 0,
    totalClusters: json['total-clusters'] ?? 0,
    compressedClusters: json['compressed-clusters'] ?? 0,
    imageEndOffset: json['image-end-offset'] ?? 0,
  }
  return { ...outcome(result), verdict }
}

/** `qemu-img convert` to raw, of the active view or of a snapshot (by ID): how it ended, digest and size. */
export async function observeContent(
  cwd: string,
  file: string,
  options: { readonly snapshotId?: string; readonly secret?: string | undefined } = {},
): Promise<Outcome & { readonly content?: string; readonly size?: number }> {
  const target = join(cwd, 'content.raw')
  const { snapshotId, secret } = options
  const source =
    secret === undefined
      ? ['-f', 'qcow2', file]
      : [
          ...['--object', `secret,id=key,data=${secret}`, '--image-opts'],
          `driver=qcow2,encrypt.key-secret=key,file.filename=${file}`,
        ]
  const which = snapshotId === undefined ? [] : ['-l', `snapshot.id=${snapshotId}`]
  const result = await qemuImg(['convert', ...which, '-O', 'raw', ...source, target], {
    cwd,
    ...LIMIT,
  })
  try {
    if (result.status !== 0) return outcome(result)
    return { ...outcome(result), content: await digestOf(target), size: statSync(target).size }
  } finally {
    rmSync(target, { force: true })
  }
}

/**
 * Every snapshot with its digest: of the disk after `snapshot -a` (in the size of the snapshot), and of what
 * `convert -l` makes of it (which keeps the size of the active disk). Changes the image: work on a copy.
 */
export async function observeSnapshots(
  cwd: string,
  file: string,
  info: ImageInfo,
): Promise<ManifestSnapshot[]> {
  const list = info.snapshots ?? []
  const converted: Content[] = []
  for (const { id } of list) converted.push(await demandContent(cwd, file, { snapshotId: id }))
  const seen: ManifestSnapshot[] = []
  for (const [index, { id, name, 'vm-state-size': vmStateSize }] of list.entries()) {
    const applied = outcome(await qemuImg(['snapshot', '-a', id, file], { cwd }))
    // Where refcounts are too narrow to apply it, the size has never been another.
    const { content, size } =
      applied.status === 0 ? await demandContent(cwd, file) : converted[index]!
    const common = { id, name, virtualSize: size, vmStateSize, content }
    seen.push({ ...common, converted: converted[index]!.content, apply: applied })
  }
  return seen
}

interface Content {
  readonly content: string
  readonly size: number
}

async function demandContent(
  cwd: string,
  file: string,
  options: { readonly snapshotId?: string } = {},
): Promise<Content> {
  const { content, size, complaint } = await observeContent(cwd, file, options)
  if (content === undefined || size === undefined) throw new Error(`${file}: ${complaint}`)
  return { content, size }
}

/** Every bitmap, with its dirty ranges where it can be read. Changes the image: work on a copy. */
export async function observeBitmaps(
  cwd: string,
  file: string,
  info: ImageInfo,
): Promise<ManifestBitmap[]> {
  const seen: ManifestBitmap[] = []
  for (const bitmap of info['format-specific']?.data?.bitmaps ?? []) {
    const { name, granularity, flags } = bitmap
    if (flags.includes('in-use')) {
      seen.push({ name, granularity, flags })
      continue
    }
    await qemuImgOk(['bitmap', '--disable', file, name], { cwd })
    seen.push({ name, granularity, flags, dirty: await dirtyRanges(cwd, file, name) })
  }
  return seen
}

async function dirtyRanges(cwd: string, file: string, bitmap: string): Promise<DirtyRange[]> {
  const socket = join(cwd, 'nbd.sock')
  await using _server = await qemuNbd(socket, ['-r', '-f', 'qcow2', '-B', bitmap, join(cwd, file)])
  const node = `driver=nbd,server.type=unix,server.path=${socket}`
  const context = `x-dirty-bitmap=qemu:dirty-bitmap:${bitmap}`
  const text = await qemuImgOk(['map', '--output=json', '--image-opts', `${node},${context}`])
  const extents = JSON.parse(text) as { start: number; length: number; data: boolean }[]
  const ranges: [number, number][] = []
  for (const { start, length } of extents.filter((extent) => !extent.data)) {
    const last = ranges.at(-1)
    if (last !== undefined && last[0] + last[1] === start) last[1] += length
    else ranges.push([start, length])
  }
  return ranges
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}
