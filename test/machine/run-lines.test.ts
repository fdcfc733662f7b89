import { describe, expect, test } from 'vitest'
import { runLines, shellLine } from '../../src/machine/index.ts'

const disks = [{ path: '/vm/a,b.qcow2', format: 'qcow2' }] as const

function lines(request: Partial<Parameters<typeof runLines>[0]>): string[] {
  return runLines({ name: 'guest', disks, states: [], ...request }).map((line) =>
    shellLine(line.arguments),
  )
}

describe('command lines', () => {
  test('without state there is one of QEMU and one of bhyve', () => {
    expect(lines({})).toEqual([
      'qemu-system-x86_64 -name guest -drive file=/vm/a,,b.qcow2,format=qcow2,if=virtio',
      'bhyve -c 1 -m 1024M -A -H -P -s 0,hostbridge -s 1,lpc -s 4,ahci-hd,/vm/a,b.qcow2 -l com1,stdio guest',
    ])
  })

  test('memory in a snapshot is loaded by name', () => {
    expect(lines({ snapshot: 'before update' })).toEqual([
      "qemu-system-x86_64 -name guest -drive file=/vm/a,,b.qcow2,format=qcow2,if=virtio -loadvm 'before update'",
    ])
  })

  test('a migration stream comes in on its machine type', () => {
    const stream = {
      kind: 'qemu-migration',
      paths: ["/it's"],
      facts: { machine: 'pc-q35-7.2' },
    } as const
    expect(lines({ states: [stream] })).toEqual([
      'qemu-system-x86_64 -name guest -machine pc-q35-7.2 -drive file=/vm/a,,b.qcow2,format=qcow2,if=virtio ' +
        "-incoming 'exec:cat '\\''/it'\\''\\'\\'''\\''s'\\'''",
    ])
  })

  test('bhyve restores by the name in its folder, with the CPUs and memory of the state', () => {
    const state = {
      kind: 'bhyve',
      paths: ['/s/clean', '/s/clean.kern', '/s/clean.meta'],
      facts: { vmName: 'freebsd', cpuCount: 4, memorySize: 512 << 20 },
    } as const
    expect(lines({ states: [state] })).toEqual([
      'bhyve -c 4 -m 512M -A -H -P -s 0,hostbridge -s 1,lpc -s 4,ahci-hd,/vm/a,b.qcow2 -l com1,stdio -r clean freebsd',
    ])
  })

  test('a save image is for libvirt', () => {
    const state = { kind: 'libvirt-save', paths: ['/s/tiny.save'], facts: {} } as const
    expect(lines({ states: [state] })).toEqual(['virsh restore /s/tiny.save'])
  })
})
