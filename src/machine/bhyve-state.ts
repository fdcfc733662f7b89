/**
 * A bhyve checkpoint: guest memory in NAME, kernel and device states one behind the other in NAME.kern, and NAME.meta, which says
 * where each lies. bhyve asserts what it reads there, so a bad file ends it; here every claim is checked first. None of the
 * three names a disk: what binds them to one is the checkpoint that holds them.
 */

import { type BhyveMeta, type BhyveSection, parseBhyveMeta } from './bhyve-schema.ts'
import { type StateFinding, type StateReport, stateError, stateWarning } from './state-finding.ts'

/** Sizes in bytes of the two files beside the `.meta` file. */
export interface BhyveSizes {
  readonly memory: number
  readonly kernel: number
}

/** A `.meta` file above this is not one. */
export const BHYVE_META_LIMIT = 4 * 1024 * 1024

const PAGE_SIZE = 4096
const LONGEST_VM_NAME = 99
const MOST_FINDINGS = 50

/** Structures without which a restore ends; some trees call the local APIC `lapic`, and only Intel machines have `vmx`. */
const KERNEL_NAMES = [
  'vm',
  'vioapic',
  'vlapic',
  'vhpet',
  'vmcx',
  'vatpic',
  'vatpit',
  'vpmtmr',
  'vrtc',
]
const OTHER_KERNEL_NAMES = ['vmx', 'lapic', 'vm_mem', 'svm']
const DEVICES = /^(atkbdc|virtio-\w+|lpc|fbuf|xhci|e1000|ahci(-hd|-cd)?|nvme|hda|hostbridge|uart)\b/

/** Reads a `.meta` file and holds it against the other two. Throws an ImageError `BHYVE_META` where it is none. */
export function readBhyveState(text: string, sizes: BhyveSizes): StateReport {
  const meta = parseBhyveMeta(text)
  const findings = [...basicFindings(meta, sizes), ...sectionFindings(meta.sections, sizes.kernel)]
  const { vmName, cpuCount, memorySize, spelling } = meta
  const cpus = cpuCount === 1 ? '1 CPU' : `${cpuCount} CPUs`
  return {
    summary: `bhyve state of '${vmName}', ${cpus}, ${memorySize / 1024 / 1024} MiB of memory`,
    facts: { vmName, cpuCount, memorySize, spelling, sectionCount: meta.sections.length },
    findings: findings.slice(0, MOST_FINDINGS),
  }
}

function basicFindings(meta: BhyveMeta, sizes: BhyveSizes): StateFinding[] {
  const findings: StateFinding[] = []
  const { cpuCount, memorySize, vmName, sections } = meta
  if (cpuCount < 1) findings.push(stateError('number of CPUs is 0'))
  if (vmName === '') findings.push(stateError('name of the machine is empty'))
  if (Buffer.byteLength(vmName) > LONGEST_VM_NAME) {
    findings.push(stateError(`name of the machine is longer than ${LONGEST_VM_NAME} bytes`))
  }
  if (sizes.memory === 0) findings.push(stateError('memory file is empty'))
  if (sizes.kernel === 0) findings.push(stateError('kernel state file is empty'))
  if (sizes.memory !== memorySize) {
    findings.push(
      stateError(`memory file has ${sizes.memory} bytes, the machine has ${memorySize}`),
    )
  }
  if (memorySize % PAGE_SIZE !== 0) {
    findings.push(stateWarning(`memory of ${memorySize} bytes is no multiple of 4 KiB`))
  }
  const names = new Set(sections.filter(({ list }) => list === 'kernel').map(({ name }) => name))
  for (const name of KERNEL_NAMES) {
    if (names.has(name) || (name === 'vlapic' && names.has('lapic'))) continue
    findings.push(
      stateWarning(`kernel structure '${name}' is missing, without which bhyve does not restore`),
    )
  }
  for (const { list, name } of sections) {
    const isKnown =
      list === 'kernel'
        ? KERNEL_NAMES.includes(name) || OTHER_KERNEL_NAMES.includes(name)
        : DEVICES.test(name)
    if (!isKnown) findings.push(stateWarning(`${list} '${name}' is not known`))
  }
  return findings
}

/** Ranges must lie within the file and not on each other; bhyve writes them from 0 on without a gap. */
function sectionFindings(sections: readonly BhyveSection[], size: number): StateFinding[] {
  const findings: StateFinding[] = []
  for (const { list, name, offset, length } of sections) {
    if (list === 'kernel' && length === 0) {
      findings.push(stateError(`kernel structure '${name}' is empty`))
    }
    if (offset + length > size) {
      const end = `0x${(offset + length).toString(16)}`
      findings.push(stateError(`${list} '${name}' ends at ${end}, behind the kernel state file`))
    }
  }
  let end = 0
  let last = ''
  const used = sections.filter(({ length }) => length > 0)
  for (const { name, offset, length } of used.toSorted((a, b) => a.offset - b.offset)) {
    if (offset < end) findings.push(stateError(`'${name}' overlaps '${last}'`))
    if (offset > end) {
      findings.push(stateWarning(`${offset - end} bytes before '${name}' belong to nothing`))
    }
    if (offset + length > end) [end, last] = [offset + length, name]
  }
  if (end < size) {
    findings.push(
      stateWarning(`${size - end} bytes at the end of the kernel state file belong to nothing`),
    )
  }
  return findings
}
