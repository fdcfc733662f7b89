/**
 * What an overlay remembers of the file below it (docs/on-disk.md, "Base fingerprint"), so that a base which was written to,
 * resized or replaced is noticed. It tells, and refuses nothing. Only what was recorded for the name that the overlay still has
 * counts: who rebased it with another program has said where it belongs.
 */

import { bytesEqual, readU16, readU32, readU64, writeU32, writeU64 } from '../base/bytes.ts'
import { CowpointError } from '../base/errors.ts'
import { createHash } from '../base/hash.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, contentDigest } from '../block/index.ts'
import {
  EXTENSION,
  extensionText,
  type Header,
  type HeaderExtension,
  headerGeometry,
  l1EntriesFor,
  readHeader,
} from '../qcow2/index.ts'
import { FileDevice, type FileStat, type FileSystem } from '../storage/index.ts'
import type { Layer } from './chain.ts'
import { parseLocation, withFormat } from './location.ts'
import { PROBE_SIZE, probeFormat } from './probe.ts'
import { findReference, folderOf } from './reference.ts'

/** A file as a fingerprint sees it. */
interface BaseFacts {
  readonly format: 'raw' | 'qcow2'
  /** Virtual size in bytes. */
  readonly size: number
  readonly mtimeNs: bigint
  /** Digest of what the active disk's tables say, or undefined where nobody asked; zeroes for a raw disk. */
  readonly tables: Uint8Array | undefined
  /** Digest of all that the base reads as; undefined where nobody asked. */
  readonly content?: Uint8Array | undefined
}

/** How much of a base is looked at. */
export interface BaseLook extends LongWork {
  /** What the base reads as together with all below it, if that is to be read from end to end. */
  readonly content?: BlockDevice | undefined
}

/** In what a base differs from what its overlay remembers. */
export interface BaseChange {
  /** `time`: written to, perhaps with equal bytes; `tables`: other clusters than before; `unreadable`: it cannot be told. */
  readonly kinds: readonly ('format' | 'size' | 'content' | 'tables' | 'time' | 'unreadable')[]
  /** In words, without the name of the base. */
  readonly message: string
}

const VERSION = 1
const LENGTH = 40
/** With the digest of the content. */
const CONTENT_LENGTH = 72
const TABLES_AT = 24
const TABLES_LENGTH = 16
const FORMATS = ['raw', 'qcow2'] as const
const BATCH_SIZE = 1024 * 1024

/**
 * The fingerprint of a layer that stands below an image as `name`, for the header of that image. Undefined for what has none:
 * a part of a file. Reads the L1 table of a qcow2 layer, and `look.content` where that is given.
 */
export async function fingerprintOf(
  layer: Pick<Layer, 'file' | 'hostFile' | 'format' | 'fileOffset'>,
  name: string,
  look: BaseLook = {},
): Promise<HeaderExtension | undefined> {
  if (layer.fileOffset !== 0 || layer.file !== layer.hostFile) return undefined
  const stat = await layer.hostFile.stat()
  const facts = await factsOf(layer.file, stat, layer.format, true)
  const content = await contentOf(look)
  return { type: EXTENSION.baseFingerprint, data: encode({ ...facts, content }, name) }
}

/** Whether an image with this header remembers what its base reads as, byte for byte. */
export function remembersContent(header: Header): boolean {
  return decode(header)?.content !== undefined
}

async function contentOf({ content, ...work }: BaseLook): Promise<Uint8Array | undefined> {
  return content && Buffer.from(await contentDigest(content, work), 'hex')
}

/**
 * How the layer differs from what `header`, that of the image above it, remembers; undefined where it does not, or nothing is
 * remembered. Looks at sizes and times, and at the tables only where those differ. Where `look.content` is given and the image
 * remembers the content, that is read and decides: a base that reads as it did has not changed.
 */
export async function compareBase(
  header: Header,
  layer: Pick<Layer, 'file' | 'hostFile' | 'format'>,
  look: BaseLook = {},
): Promise<BaseChange | undefined> {
  const known = decode(header)
  if (known === undefined) return undefined
  try {
    const change = await differences(known, layer, await layer.hostFile.stat())
    const now = known.content && (await contentOf(look))
    if (known.content === undefined || now === undefined) return change
    const decided = change?.kinds.find((kind) => kind === 'format' || kind === 'size')
    if (bytesEqual(known.content, now)) return decided === undefined ? undefined : change
    const words = change === undefined ? '' : `, ${change.message}`
    return { kinds: ['content', ...(change?.kinds ?? [])], message: `reads otherwise${words}` }
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return { kinds: ['unreadable'], message: `cannot be compared: ${error.message}` }
  }
}

/** As `compareBase`, for an image at `path` of which only the header is known. A base that is not there is none that changed. */
export async function compareNamedBase(
  files: FileSystem,
  path: string,
  header: Header,
): Promise<BaseChange | undefined> {
  if (decode(header) === undefined) return undefined
  return withNamedBase(files, path, header, (base) => compareBase(header, base))
}

/**
 * The fingerprint that the image at `path` would have of its base now, which is known to read as it did; undefined where there is
 * none, or it cannot be read.
 */
export async function currentFingerprint(
  files: FileSystem,
  path: string,
  header: Header,
): Promise<HeaderExtension | undefined> {
  const { backingName = '' } = header
  return withNamedBase(files, path, header, async (base) => {
    const found = await fingerprintOf(base, backingName)
    const content = decode(header)?.content
    return found && { ...found, data: withContent(found.data, content) }
  })
}

/** The fingerprint in `header` as it has to be under another name of the same file. */
export function renamedFingerprint(header: Header, name: string): HeaderExtension | undefined {
  const facts = decode(header)
  if (facts === undefined) return undefined
  return { type: EXTENSION.baseFingerprint, data: encode(facts, name) }
}

async function withNamedBase<T>(
  files: FileSystem,
  path: string,
  { backingName, extensions }: Header,
  look: (base: Pick<Layer, 'file' | 'hostFile' | 'format' | 'fileOffset'>) => Promise<T>,
): Promise<T | undefined> {
  if (backingName === undefined) return undefined
  try {
    const format = extensionText(extensions, EXTENSION.backingFormat)
    const named = parseLocation(backingName, 'image')
    const location = format ? withFormat(named, format, 'image') : named
    const base = await findReference(files, {
      path: location.path,
      folder: folderOf(path),
      fromCurrentFolder: location.hasProtocol,
    })
    const { kind } = await files.stat(base)
    if (kind !== 'file' && kind !== 'block-device') return undefined
    await using file = await FileDevice.open(files, base)
    const known = location.formats.length === 0 ? 'raw' : location.formats[0]?.driver
    const found = known ?? (await probed(file))
    return await look({ file, hostFile: file, format: found, fileOffset: 0 })
  } catch (error) {
    if (error instanceof CowpointError) return undefined
    throw error
  }
}

async function probed(file: BlockDevice): Promise<'raw' | 'qcow2'> {
  const bytes = new Uint8Array(Math.min(PROBE_SIZE, file.size))
  await file.read(0, bytes)
  return probeFormat(bytes) === 'qcow2' ? 'qcow2' : 'raw'
}

async function differences(
  known: BaseFacts,
  { file, format }: Pick<Layer, 'file' | 'format'>,
  stat: FileStat,
): Promise<BaseChange | undefined> {
  const isTouched = known.mtimeNs !== timeOf(stat)
  const isFile = stat.kind === 'file'
  const now = await factsOf(file, stat, format, isTouched || !isFile)
  const kinds: BaseChange['kinds'][number][] = []
  const words: string[] = []
  if (known.format !== now.format) {
    return { kinds: ['format'], message: `is ${now.format} and was ${known.format}` }
  }
  if (known.size !== now.size) {
    kinds.push('size')
    words.push(`has ${now.size} bytes and had ${known.size}`)
  }
  if (now.tables !== undefined && !bytesEqual(known.tables ?? now.tables, now.tables)) {
    kinds.push('tables')
    words.push('has other tables')
  }
  if (isTouched) {
    kinds.push('time')
    words.push('was written to or replaced')
  }
  return kinds.length === 0 ? undefined : { kinds, message: words.join(', ') }
}

async function factsOf(
  file: BlockDevice,
  stat: FileStat,
  format: 'raw' | 'qcow2',
  withTables: boolean,
): Promise<BaseFacts> {
  const mtimeNs = timeOf(stat)
  if (format === 'raw') {
    const size = Math.ceil(file.size / 512) * 512
    return { format, size, mtimeNs, tables: new Uint8Array(TABLES_LENGTH) }
  }
  const { header } = await readHeader(file)
  const tables = withTables ? await digestTables(file, header) : undefined
  return { format, size: header.size, mtimeNs, tables }
}

/** Of a file only: the times of a device say when its node was made. */
function timeOf({ kind, mtimeNs }: FileStat): bigint {
  return kind === 'file' ? mtimeNs : 0n
}

/**
 * What decides which clusters the active disk reads. Not the rest of the header: snapshots, bitmaps, a renamed backing file and
 * moved refcounts leave what an overlay reads as it was.
 */
async function digestTables(file: BlockDevice, header: Header): Promise<Uint8Array> {
  const hash = createHash('sha256')
  const { clusterBits, size, cryptMethod, incompatibleFeatures } = header
  // Without the dirty and the corrupt bit.
  hash.update(`${clusterBits} ${size} ${cryptMethod} ${incompatibleFeatures & ~3n}\n`)
  const length = l1EntriesFor(size, headerGeometry(header)) * 8
  const bytes = new Uint8Array(Math.min(BATCH_SIZE, length))
  for (let at = 0; at < length; at += bytes.length) {
    const part = bytes.subarray(0, Math.min(bytes.length, length - at))
    await file.read(header.l1TableOffset + at, part)
    // The copied flag goes and comes with snapshots.
    for (let entry = 0; entry < part.length; entry += 8) part[entry] = 0
    hash.update(part)
  }
  return hash.digest().subarray(0, TABLES_LENGTH)
}

function encode(facts: BaseFacts, name: string): Uint8Array {
  const data = new Uint8Array(LENGTH)
  data[0] = VERSION
  data[1] = FORMATS.indexOf(facts.format)
  data.set(nameMark(name), 4)
  writeU64(data, 8, facts.size)
  writeU32(data, 16, Number(BigInt.asUintN(32, facts.mtimeNs >> 32n)))
  writeU32(data, 20, Number(BigInt.asUintN(32, facts.mtimeNs)))
  if (facts.tables !== undefined) data.set(facts.tables, TABLES_AT)
  return withContent(data, facts.content)
}

/** Behind all else, where a reader that does not know it does not look. */
function withContent(data: Uint8Array, content: Uint8Array | undefined): Uint8Array {
  return content === undefined ? data : Buffer.concat([data.subarray(0, LENGTH), content])
}

/** Undefined for none, one of a version to come, and one that was made for another name. */
function decode({ backingName, extensions }: Header): BaseFacts | undefined {
  const data = extensions.find(({ type }) => type === EXTENSION.baseFingerprint)?.data
  if (data === undefined || data.length < LENGTH || data[0] !== VERSION) return undefined
  const format = FORMATS[data[1] ?? 2]
  if (format === undefined || readU16(data, 2) !== 0 || backingName === undefined) return undefined
  if (!bytesEqual(data.subarray(4, 8), nameMark(backingName))) return undefined
  if (readU32(data, 8) > 0x1fffff) return undefined
  const mtimeNs = (BigInt(readU32(data, 16)) << 32n) | BigInt(readU32(data, 20))
  return {
    format,
    size: readU64(data, 8),
    mtimeNs: BigInt.asIntN(64, mtimeNs),
    tables: data.subarray(TABLES_AT, TABLES_AT + TABLES_LENGTH),
    content: data.length < CONTENT_LENGTH ? undefined : data.subarray(LENGTH, CONTENT_LENGTH),
  }
}

function nameMark(name: string): Uint8Array {
  return createHash('sha256').update(name).digest().subarray(0, 4)
}
