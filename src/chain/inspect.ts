/**
 * The verdict on an image that nobody vouches for: what it claims to be, which files it names, and whether reading it could harm the
 * reader. It opens the one file, for reading, and follows nothing. The tables of qcow2 are judged in qcow2/inspect.ts.
 */

import { type CowpointError, ImageError, UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import {
  type InspectFinding,
  InspectFindings,
  type InspectLimits,
  type InspectReference,
  inspectQcow2,
  type Qcow2Facts,
} from '../qcow2/index.ts'
import { FileDevice, type FileSystem, nodeFiles } from '../storage/index.ts'
import type { Format } from './driver.ts'
import { inspectMarks } from './inspect-marks.ts'
import { parseLocation } from './location.ts'
import { PROBE_SIZE, probeFormat } from './probe.ts'

/** How an image is inspected. */
export interface InspectOptions extends InspectLimits {
  /** The format in which the image will be read; found out by its first bytes where left out. */
  readonly format?: Format
  readonly signal?: AbortSignal
}

/** What an inspection came to. */
export interface Inspection {
  readonly verdict: 'accept' | 'refuse'
  /** `qcow2`, `raw`, or the format whose mark the image bears. */
  readonly format: string
  readonly fileSize: number
  /** Bytes that the file takes on disk. */
  readonly realSize: number
  /** In the order in which they were made; of many with one code a few. */
  readonly findings: readonly InspectFinding[]
  /** All findings, listed or not. */
  readonly findingCount: number
  /** Other files that the image names; none was looked at. */
  readonly references: readonly InspectReference[]
  /** What the image says of itself; undefined where it is no qcow2 image or its header cannot be parsed. */
  readonly image: Qcow2Facts | undefined
  readonly readSize: number
  readonly timeMs: number
}

/**
 * Inspects the image at a path, or on a device. Whatever the image holds ends in a verdict; it rejects only where there is no such
 * file, where the host fails, or with the signal's reason.
 */
export async function inspect(
  image: string | BlockDevice,
  options: InspectOptions & { readonly files?: FileSystem } = {},
): Promise<Inspection> {
  const { files = nodeFiles, ...rest } = options
  if (typeof image !== 'string') return inspectDevice(image, rest)
  const path = plainPath(image)
  const special = await specialFile(files, path)
  if (special !== undefined) {
    const findings = new InspectFindings()
    findings.refuseError(special, 'file')
    return inspectionOf('unknown', findings, rest, { fileSize: 0, realSize: 0, start: now() })
  }
  await using device = await FileDevice.open(files, path)
  return await inspectDevice(device, { ...rest, realSize: (await device.stat()).allocated })
}

/** The path of a name that leads to a file by itself. */
function plainPath(text: string): string {
  const { formats, path, backing } = parseLocation(text)
  const [top, ...more] = formats
  if (more.length > 0 || backing || top?.offset !== undefined || top?.size !== undefined) {
    throw new UsageError('INVALID_LOCATION', 'inspection takes the path of one file', {
      context: { location: text },
    })
  }
  return path
}

/** Why a path must not be opened at all: what acts on being opened, or has no end. Undefined for a plain file. */
export async function specialFile(
  files: FileSystem,
  path: string,
): Promise<CowpointError | undefined> {
  const { kind } = await files.stat(path)
  if (kind === 'file') return undefined
  return new ImageError('NOT_A_FILE', `image is a ${kind.replace('-', ' ')}, not a file`, {
    context: { structure: 'file' },
  })
}

/** Inspects what is open already; `realSize` is how many bytes it takes, its size where left out. */
export async function inspectDevice(
  device: BlockDevice,
  options: InspectOptions & { readonly realSize?: number } = {},
): Promise<Inspection> {
  const { format: asked, realSize = device.size, signal, ...limits } = options
  const start = now()
  const findings = new InspectFindings()
  const first = new Uint8Array(Math.min(PROBE_SIZE, device.size))
  await device.read(0, first)
  const probed = probeFormat(first)
  const format = asked ?? probed
  const sizes = { fileSize: device.size, realSize, start }
  if (format === 'qcow2') {
    const use = { ...limits, realSize, ...(signal === undefined ? {} : { signal }) }
    const { facts, references, readSize, ...found } = await inspectQcow2(device, use)
    await inspectMarks(device, 'qcow2', found.findings)
    return inspectionOf(format, found.findings, options, {
      ...{ ...sizes, references, readSize },
      ...(facts === undefined ? {} : { image: facts }),
    })
  }
  if (format === 'raw') {
    if (probed !== 'raw') {
      findings.warn('SECOND_FORMAT', 'header', () => `raw image begins as ${probed}`, 0)
    }
    await inspectMarks(device, 'raw', findings)
  } else {
    const message = () => `image is in format ${format}, which is not read here`
    findings.refuse('FORMAT_NOT_SUPPORTED', 'header', message, 0)
  }
  return inspectionOf(format, findings, options, sizes)
}

interface Sizes {
  readonly fileSize: number
  readonly realSize: number
  readonly start: number
  readonly references?: readonly InspectReference[]
  readonly readSize?: number
  readonly image?: Qcow2Facts
}

function inspectionOf(
  format: string,
  found: InspectFindings,
  { strict = false }: InspectLimits,
  { start, references = [], readSize = 0, image, ...sizes }: Sizes,
): Inspection {
  const refused = found.list.some((finding) => weighs(finding, strict))
  return {
    verdict: refused ? 'refuse' : 'accept',
    format,
    ...sizes,
    findings: found.list,
    findingCount: found.count,
    references,
    image,
    readSize: Math.max(readSize, Math.min(PROBE_SIZE, sizes.fileSize)),
    timeMs: now() - start,
  }
}

function weighs({ severity }: InspectFinding, strict: boolean): boolean {
  return severity === 'refuse' || (strict && severity === 'warn')
}

function now(): number {
  return performance.now()
}

/** Throws the error of a refused image: the first reason with its code, all codes in `context.findings`. */
export function throwRefusal(inspection: Inspection, { strict = false }: InspectLimits): void {
  const reasons = inspection.findings.filter((finding) => weighs(finding, strict))
  const [first] = reasons
  if (first === undefined) return
  const { code, message, structure, offset } = first
  throw new ImageError(code, `untrusted image is refused: ${message}`, {
    context: {
      structure,
      ...(offset === undefined ? {} : { offset }),
      findings: [...new Set(reasons.map((reason) => reason.code))],
    },
  })
}
