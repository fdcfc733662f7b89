/**
 * A save image of libvirt (`virsh save`, external memory snapshots): a header of 92 bytes in the byte order of the host that
 * wrote it, the XML of the domain, and then QEMU's stream, possibly compressed.
 */

import type { BlockDevice } from '../block/index.ts'
import { readQemuStream } from './qemu-stream.ts'
import { type StateFinding, type StateReport, stateError, stateWarning } from './state-finding.ts'

const MAGIC = 'LibvirtQemudSave'
const UNFINISHED = 'LibvirtQemudPart'
const HEADER_SIZE = 92
const NEWEST_VERSION = 2
const XML_LIMIT = 64 * 1024 * 1024
/** Names and the machine type stand at the beginning. */
const XML_LOOK = 1024 * 1024
const FORMATS = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd']

/** Whether these first bytes of a file are those of a save image, finished or not. */
export function isLibvirtSave(head: Uint8Array): boolean {
  const magic = textOf(head.subarray(0, MAGIC.length))
  return magic === MAGIC || magic === UNFINISHED
}

/** Reads what a save image says of itself. */
export async function readLibvirtSave(file: BlockDevice): Promise<StateReport> {
  if (file.size < HEADER_SIZE) {
    const findings = [stateError('libvirt save image is shorter than its header')]
    return { summary: 'libvirt save image', facts: {}, findings }
  }
  const header = Buffer.alloc(HEADER_SIZE)
  await file.read(0, header)
  const findings: StateFinding[] = []
  if (textOf(header.subarray(0, MAGIC.length)) === UNFINISHED) {
    findings.push(stateError('libvirt save image was not finished'))
  }
  // Version 1 and 2 in the other byte order are far above any version to come.
  const isBig = header.readUInt32LE(16) > 0xffff
  const field = (at: number): number => (isBig ? header.readUInt32BE(at) : header.readUInt32LE(at))
  const [version, xmlLength, running, format] = [field(16), field(20), field(24), field(28)]
  if (version < 1 || version > NEWEST_VERSION) {
    findings.push(stateError(`libvirt save image has version ${version}, not 1 or 2`))
  }
  const facts: Record<string, string | number | boolean> = {
    version,
    wasRunning: running !== 0,
    format: FORMATS[format] ?? String(format),
  }
  if (xmlLength > XML_LIMIT || HEADER_SIZE + xmlLength > file.size) {
    findings.push(stateError(`XML of ${xmlLength} bytes ends behind the libvirt save image`))
    return { summary: 'libvirt save image', facts, findings }
  }
  const xml = await readXml(file, xmlLength)
  const domain = firstText(xml, 'name')
  const uuid = firstText(xml, 'uuid')
  if (domain === undefined) findings.push(stateWarning('XML names no domain'))
  else facts.domain = domain
  if (uuid !== undefined) facts.uuid = uuid
  if (format >= FORMATS.length) findings.push(stateWarning(`format ${format} is not known`))
  if (format === 0) {
    const stream = await readQemuStream(file, HEADER_SIZE + xmlLength)
    findings.push(...stream.findings)
    if (stream.facts.machine !== undefined) facts.machine = stream.facts.machine
  }
  const name = domain === undefined ? '' : ` of '${domain}'`
  return { summary: `libvirt save image${name}`, facts, findings }
}

async function readXml(file: BlockDevice, length: number): Promise<string> {
  const bytes = new Uint8Array(Math.min(length, XML_LOOK))
  await file.read(HEADER_SIZE, bytes)
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8')
}

/** The text of the first element of that name, if it is plain. */
function firstText(xml: string, element: string): string | undefined {
  const start = xml.indexOf(`<${element}>`)
  if (start < 0) return undefined
  const from = start + element.length + 2
  const end = xml.indexOf('<', from)
  const text = end < 0 ? '' : xml.slice(from, end).trim()
  return text === '' || text.length > 256 ? undefined : text
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1')
}
