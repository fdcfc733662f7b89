/**
 * Who else has a file open, from /proc: to name those who hold its lock, and to find writers that lock nothing. A hint for
 * people and a second line of defence, never the lock itself: processes of other users and hosts are not seen.
 */

import * as fs from 'node:fs'
import { breathe } from '../base/breathe.ts'
import { nowMs } from '../base/clock.ts'
import type { FileStat } from './files.ts'
import { isLockByte } from './lock-bytes.ts'

/** A process that has a file open. */
export interface FileHolder {
  readonly pid: number
  /** Its command line, shortened. */
  readonly command: string
  /** Whether it can write through one of its descriptors. */
  readonly writes: boolean
  /** Whether it holds bytes of an image lock. */
  readonly locks: boolean
}

const PROC = '/proc'
/** Far more than it takes, but on a machine with a hundred thousand open files. */
const TIME_LIMIT_MS = 2000
const HOLDER_LIMIT = 16
const COMMAND_LENGTH = 120
/** Links of descriptors that are no files with a place in a folder. */
const NO_FILE = /^(?:\/dev\/(?:null|zero|u?random|tty|pts\/)|[a-z_]+:|\/memfd:|\/proc\/)/

/**
 * The processes that have the file open, as far as this user may see them, this one only with `own`; at most 16, within 2 s,
 * youngest first. Empty where the host has no /proc.
 */
export async function findHolders(
  file: Pick<FileStat, 'dev' | 'ino'>,
  { own = false }: { own?: boolean } = {},
): Promise<FileHolder[]> {
  const deadline = nowMs() + TIME_LIMIT_MS
  const holders: FileHolder[] = []
  for (const name of listed(PROC).reverse()) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || (pid === process.pid && !own)) continue
    const holder = lookAt(pid, file)
    if (holder !== undefined) holders.push(holder)
    if (holders.length === HOLDER_LIMIT || nowMs() > deadline) break
    await breathe()
  }
  return holders
}

/**
 * Whether the holder may write without any lock telling so: it can write now, or it is a QEMU that took none, as one does that
 * waits for a machine to be migrated to it.
 */
export function mayWrite({ writes, locks, command }: FileHolder): boolean {
  return !locks && (writes || /^(?:[^ ]*\/)?(?:qemu|kvm)/.test(command))
}

/** `pid 1234 (qemu-system-x86_64 -m 1G …)`. */
export function holderText({ pid, command }: Pick<FileHolder, 'pid' | 'command'>): string {
  return `pid ${pid} (${command})`
}

function lookAt(pid: number, file: Pick<FileStat, 'dev' | 'ino'>): FileHolder | undefined {
  let isOpen = false
  let writes = false
  let locks = false
  for (const fd of listed(`${PROC}/${pid}/fd`)) {
    const found = leadsTo(`${PROC}/${pid}/fd/${fd}`, file)
    if (found === undefined) break
    if (!found) continue
    isOpen = true
    const info = textOf(`${PROC}/${pid}/fdinfo/${fd}`)
    const access = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '0', 8) & 3
    if (access !== fs.constants.O_RDONLY) writes = true
    for (const [, first, last] of info.matchAll(/^lock:.*OFDLCK.* (\d+) (\d+|EOF)$/gm)) {
      if (isLockByte(Number(first), last === 'EOF' ? Infinity : Number(last))) locks = true
    }
  }
  return isOpen ? { pid, command: commandOf(pid), writes, locks } : undefined
}

/** Undefined where the process is none of those that this user may look into. */
function leadsTo(link: string, { dev, ino }: Pick<FileStat, 'dev' | 'ino'>): boolean | undefined {
  try {
    if (NO_FILE.test(fs.readlinkSync(link))) return false
    const stat = fs.statSync(link, { bigint: true })
    return stat.ino === ino && stat.dev === dev
  } catch (error) {
    // Closed meanwhile, or not ours to see.
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    return code === 'EACCES' || code === 'EPERM' ? undefined : false
  }
}

function commandOf(pid: number): string {
  const words = textOf(`${PROC}/${pid}/cmdline`).split('\0').join(' ').trim()
  const text = (words || textOf(`${PROC}/${pid}/comm`).trim() || 'unknown').replace(/\p{Cc}/gu, '?')
  return text.length <= COMMAND_LENGTH ? text : `${text.slice(0, COMMAND_LENGTH - 1)}…`
}

function listed(folder: string): string[] {
  try {
    return fs.readdirSync(folder)
  } catch {
    return []
  }
}

function textOf(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
