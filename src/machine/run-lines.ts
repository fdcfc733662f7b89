/**
 * The command lines that start a machine on given disks and with given state. They are for reading and adapting: network,
 * display and whatever else the machine had are its owner's affair.
 */

import { basename } from 'node:path'
import type { MachineState } from './state-files.ts'

/** A disk as a hypervisor is told of it. */
export interface RunDisk {
  readonly path: string
  readonly format: 'raw' | 'qcow2'
}

/** What a machine is started with. */
export interface RunRequest {
  /** Of the machine, where no state says it. */
  readonly name: string
  readonly disks: readonly RunDisk[]
  readonly states: readonly Pick<MachineState, 'kind' | 'paths' | 'facts'>[]
  /** The snapshot of the first disk whose VM state holds the memory, where one does. */
  readonly snapshot?: string | undefined
}

/** One command line. */
export interface RunLine {
  readonly hypervisor: 'qemu' | 'bhyve' | 'libvirt'
  readonly arguments: readonly string[]
}

const DEFAULT_MEMORY_MIB = 1024
const FIRST_DISK_SLOT = 4

/** The lines for each hypervisor that can take this state; one of QEMU and one of bhyve where there is none. */
export function runLines(request: RunRequest): RunLine[] {
  const kinds = new Set(request.states.map(({ kind }) => kind))
  const lines: RunLine[] = []
  for (const { kind, paths } of request.states) {
    if (kind !== 'libvirt-save') continue
    lines.push({ hypervisor: 'libvirt', arguments: ['virsh', 'restore', paths[0] as string] })
  }
  const isForeign = kinds.has('bhyve') || kinds.has('libvirt-save')
  if (kinds.has('qemu-migration') || request.snapshot !== undefined || !isForeign) {
    lines.push(qemuLine(request))
  }
  const isQemus = kinds.has('qemu-migration') || kinds.has('libvirt-save')
  if (kinds.has('bhyve') || (!isQemus && request.snapshot === undefined))
    lines.push(bhyveLine(request))
  return lines
}

/** The arguments as one line of a POSIX shell. */
export function shellLine(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ')
}

function qemuLine({ name, disks, states, snapshot }: RunRequest): RunLine {
  const stream = states.find(({ kind }) => kind === 'qemu-migration')
  const words = ['qemu-system-x86_64', '-name', qemuValue(name)]
  if (typeof stream?.facts.machine === 'string') words.push('-machine', stream.facts.machine)
  for (const { path, format } of disks) {
    words.push('-drive', `file=${qemuValue(path)},format=${format},if=virtio`)
  }
  for (const { kind, paths } of states) {
    if (kind !== 'nvram') continue
    words.push('-drive', `file=${qemuValue(paths[0] as string)},format=raw,if=pflash,unit=1`)
  }
  if (snapshot !== undefined) words.push('-loadvm', snapshot)
  if (stream !== undefined) {
    words.push('-incoming', `exec:cat ${shellLine([stream.paths[0] as string])}`)
  }
  return { hypervisor: 'qemu', arguments: words }
}

/** QEMU reads a comma as the end of a value, and two as one. */
function qemuValue(text: string): string {
  return text.replaceAll(',', ',,')
}

function bhyveLine({ name, disks, states }: RunRequest): RunLine {
  const state = states.find(({ kind }) => kind === 'bhyve')
  const { vmName, cpuCount, memorySize } = state?.facts ?? {}
  const memoryMib =
    typeof memorySize === 'number' ? Math.ceil(memorySize / 1024 / 1024) : DEFAULT_MEMORY_MIB
  const words = ['bhyve', '-c', String(cpuCount ?? 1), '-m', `${memoryMib}M`, '-A', '-H', '-P']
  words.push('-s', '0,hostbridge', '-s', '1,lpc')
  for (const [index, { path }] of disks.entries()) {
    words.push('-s', `${FIRST_DISK_SLOT + index},ahci-hd,${path}`)
  }
  words.push('-l', 'com1,stdio')
  // bhyve looks for the three files in its working folder, under one name.
  if (state !== undefined) words.push('-r', basename(state.paths[0] as string))
  words.push(typeof vmName === 'string' ? vmName : name)
  return { hypervisor: 'bhyve', arguments: words }
}
