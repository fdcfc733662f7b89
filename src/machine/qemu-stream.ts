/**
 * A QEMU migration stream, known by its head and its end: version, machine type, and the description of the devices that QEMU
 * writes last. What lies between is QEMU's alone. It holds no path and no disk.
 */

import { readU32 } from '../base/bytes.ts'
import type { BlockDevice } from '../block/index.ts'
import { type StateFinding, type StateReport, stateError, stateWarning } from './state-finding.ts'

/** Bytes at the beginning that are enough to know a stream. */
export const STREAM_HEAD_SIZE = 13 + 256

const MAGIC = 0x5145564d
const VERSION = 3
const SECTION_CONFIGURATION = 0x07
const SECTION_DESCRIPTION = 0x06
const LONGEST_MACHINE_NAME = 255
const DESCRIPTION_LIMIT = 4 * 1024 * 1024
const JSON_START = 0x7b
const JSON_END = 0x7d

/** Whether these first bytes of a file are those of a migration stream. */
export function isQemuStream(head: Uint8Array): boolean {
  return head.length >= 8 && readU32(head, 0) === MAGIC
}

/** Reads what a stream that begins at `offset` and ends with the file says of itself. */
export async function readQemuStream(file: BlockDevice, offset = 0): Promise<StateReport> {
  const head = new Uint8Array(Math.max(0, Math.min(STREAM_HEAD_SIZE, file.size - offset)))
  await file.read(offset, head)
  if (!isQemuStream(head)) {
    return {
      summary: 'no QEMU stream',
      facts: {},
      findings: [stateError('QEMU stream is missing')],
    }
  }
  const findings: StateFinding[] = []
  const version = readU32(head, 4)
  if (version !== VERSION) findings.push(stateError(`QEMU stream has version ${version}, not 3`))
  const machine = machineOf(head)
  if (machine === undefined) {
    findings.push(stateWarning('QEMU stream does not name its machine type'))
  }
  const devices = await deviceCountOf(file, offset)
  if (devices === undefined) {
    findings.push(
      stateWarning('QEMU stream has no device description at its end: it may be cut off'),
    )
  }
  const facts: Record<string, string | number> = { streamVersion: version }
  if (machine !== undefined) facts.machine = machine
  if (devices !== undefined) facts.deviceCount = devices
  const what = machine === undefined ? '' : ` of a ${machine} machine`
  return { summary: `QEMU migration stream${what}`, facts, findings }
}

function machineOf(head: Uint8Array): string | undefined {
  if (head[8] !== SECTION_CONFIGURATION || head.length < 13) return undefined
  const length = readU32(head, 9)
  if (length === 0 || length > LONGEST_MACHINE_NAME || 13 + length > head.length) return undefined
  const name = Buffer.from(head.subarray(13, 13 + length)).toString('latin1')
  return /^[\w.+-]+$/.test(name) ? name : undefined
}

/** How many devices the description at the end lists; undefined where there is none. */
async function deviceCountOf(file: BlockDevice, start: number): Promise<number | undefined> {
  const length = Math.min(DESCRIPTION_LIMIT, file.size - start)
  const tail = new Uint8Array(length)
  await file.read(file.size - length, tail)
  if (tail.at(-1) !== JSON_END) return undefined
  for (let at = tail.indexOf(SECTION_DESCRIPTION); at >= 0; ) {
    if (tail[at + 5] === JSON_START && readU32(tail, at + 1) === length - at - 5) {
      return devicesIn(Buffer.from(tail.subarray(at + 5)).toString('utf8'))
    }
    at = tail.indexOf(SECTION_DESCRIPTION, at + 1)
  }
  return undefined
}

function devicesIn(text: string): number | undefined {
  try {
    const { devices } = JSON.parse(text) as { devices?: unknown }
    return Array.isArray(devices) ? devices.length : undefined
  } catch {
    return undefined
  }
}
