import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { examineStateFiles, type MachineState } from '../../src/machine/index.ts'
import { tempFolder } from '../support/temp.ts'
import { type BhyveFiles, bhyveFiles, libvirtSave, qemuStream } from './state-fixtures.ts'

function place(name: string, bytes: Uint8Array | string): string {
  const path = join(tempFolder(), name)
  writeFileSync(path, bytes)
  return path
}

async function examine(bytes: Uint8Array | string, name = 'state'): Promise<MachineState> {
  const [state] = await examineStateFiles([{ path: place(name, bytes) }])
  return state as MachineState
}

function messages({ findings }: MachineState): string[] {
  return findings.map(({ severity, message }) => `${severity}: ${message}`)
}

async function examineBhyve(files: BhyveFiles, given = ['']): Promise<MachineState[]> {
  const stem = join(tempFolder(), 'clean')
  writeFileSync(stem, files.memory)
  writeFileSync(`${stem}.kern`, files.kernel)
  writeFileSync(`${stem}.meta`, JSON.stringify(files.meta))
  return examineStateFiles(given.map((ending) => ({ path: stem + ending })))
}

describe('a bhyve checkpoint', () => {
  test.each(['structs', 'kern_structs'] as const)('spelled with %s is sound', async (spelling) => {
    const [state] = await examineBhyve(bhyveFiles(spelling))
    expect(state).toMatchObject({
      kind: 'bhyve',
      summary: "bhyve state of 'guest', 2 CPUs, 1 MiB of memory",
      facts: { vmName: 'guest', cpuCount: 2, memorySize: 1048576, spelling },
      findings: [],
    })
  })

  test.each([[['']], [['.meta']], [['.kern', '', '.meta']]])(
    'is one state however it is named: %j',
    async (given) => {
      const states = await examineBhyve(bhyveFiles(), given)
      expect(states).toHaveLength(1)
      expect(states[0]?.paths.map((path) => path.replace(/.*clean/, ''))).toEqual([
        '',
        '.kern',
        '.meta',
      ])
    },
  )

  const damages: [string, (files: BhyveFiles) => Partial<BhyveFiles> | undefined, string][] = [
    [
      'memory of another size',
      () => ({ memory: new Uint8Array(4096) }),
      'error: memory file has 4096 bytes, the machine has 1048576',
    ],
    [
      'a structure behind the end',
      ({ meta }) => {
        Object.assign(meta.structs?.[0] ?? {}, { file_offset: 1 << 20 })
        return undefined
      },
      "error: kernel 'vhpet' ends at 0x100040, behind the kernel state file",
    ],
    [
      'an overlap',
      ({ meta }) => {
        Object.assign(meta.structs?.[1] ?? {}, { file_offset: 32 })
        return undefined
      },
      "error: 'vm' overlaps 'vhpet'",
    ],
    [
      'a missing structure',
      ({ meta }) => {
        meta.structs?.pop()
        return undefined
      },
      "warning: kernel structure 'vrtc' is missing, without which bhyve does not restore",
    ],
    [
      'an empty structure',
      ({ meta }) => {
        Object.assign(meta.structs?.[0] ?? {}, { size: 0 })
        return undefined
      },
      "error: kernel structure 'vhpet' is empty",
    ],
    [
      'bytes that belong to nothing',
      ({ kernel }) => ({ kernel: Buffer.concat([kernel, Buffer.alloc(5)]) }),
      'warning: 5 bytes at the end of the kernel state file belong to nothing',
    ],
    [
      'an unknown device',
      ({ meta }) => {
        Object.assign(meta.devices[0] ?? {}, { snapshot_req: 'flux' })
        return undefined
      },
      "warning: device 'flux' is not known",
    ],
    [
      'no CPU',
      ({ meta }) => {
        meta['basic metadata'].ncpus = 0
        return undefined
      },
      'error: number of CPUs is 0',
    ],
    [
      'a field that does not fit',
      ({ meta }) => {
        Object.assign(meta.devices[0] ?? {}, { size: -1 })
        return undefined
      },
      'error: bhyve meta file field devices[0].size does not fit: Invalid input',
    ],
  ]
  test.each(damages)('%s is found', async (_name, damage, message) => {
    const files = bhyveFiles()
    const [state] = await examineBhyve({ ...files, ...damage(files) })
    expect(messages(state as MachineState)).toContain(message)
  })

  test('without its meta file says which one is missing', async () => {
    const stem = place('half', 'memory')
    writeFileSync(`${stem}.kern`, 'kernel')
    const [state] = await examineStateFiles([{ path: `${stem}.kern` }])
    expect(messages(state as MachineState)).toEqual(['error: half.meta is missing'])
  })
})

describe('a migration stream', () => {
  test('names its machine and counts its devices', async () => {
    expect(await examine(qemuStream())).toMatchObject({
      kind: 'qemu-migration',
      summary: 'QEMU migration stream of a pc-q35-7.2 machine',
      facts: { streamVersion: 3, machine: 'pc-q35-7.2', deviceCount: 3 },
      findings: [],
    })
  })

  test('that was cut off anywhere is suspicious, and costs no exception', async () => {
    const whole = qemuStream()
    for (let length = 8; length < whole.length; length += 37) {
      const state = await examine(whole.subarray(0, length))
      expect(messages(state).join()).toMatch(/may be cut off/)
    }
  })

  test('of another version is refused', async () => {
    const stream = qemuStream()
    stream[7] = 2
    expect(messages(await examine(stream))).toEqual(['error: QEMU stream has version 2, not 3'])
  })
})

describe('a libvirt save image', () => {
  test.each([false, true])('tells its domain and machine (big-endian: %s)', async (bigEndian) => {
    expect(await examine(libvirtSave(qemuStream('pc-i440fx-7.2'), { bigEndian }))).toMatchObject({
      kind: 'libvirt-save',
      summary: "libvirt save image of 'tiny'",
      facts: {
        domain: 'tiny',
        uuid: '0a1b',
        wasRunning: true,
        format: 'raw',
        machine: 'pc-i440fx-7.2',
      },
      findings: [],
    })
  })

  test('that was not finished is refused', async () => {
    const state = await examine(libvirtSave(qemuStream(), { magic: 'LibvirtQemudPart' }))
    expect(messages(state)).toEqual(['error: libvirt save image was not finished'])
  })

  test('whose XML claims more than the file has is refused', async () => {
    const save = libvirtSave(qemuStream())
    save.writeUInt32LE(0x7fffffff, 20)
    expect(messages(await examine(save)).join()).toMatch(/ends behind the libvirt save image/)
  })

  test('with a compressed stream is not looked into', async () => {
    const state = await examine(libvirtSave(Buffer.from('whatever'), { format: 5 }))
    expect(state.facts.format).toBe('zstd')
    expect(state.findings).toEqual([])
  })
})

describe('other files', () => {
  test('firmware variables and TPM state are known', async () => {
    const variables = Buffer.alloc(128)
    variables.write('_FVH', 40)
    expect((await examine(variables)).kind).toBe('nvram')
    expect((await examine('state', 'tpm2-00.permall')).kind).toBe('tpm')
    expect((await examine('anything')).kind).toBe('other')
  })

  test('a file that is not what it was said to be is refused', async () => {
    const path = place('state', 'anything')
    for (const kind of ['qemu-migration', 'libvirt-save', 'bhyve'] as const) {
      await expect(examineStateFiles([{ path, kind }])).rejects.toMatchObject({
        code: 'STATE_KIND',
      })
    }
    expect((await examineStateFiles([{ path, kind: 'nvram' }]))[0]?.kind).toBe('nvram')
  })

  test('a file that is not there is an error of the host', async () => {
    const missing = examineStateFiles([{ path: join(tempFolder(), 'nothing') }])
    await expect(missing).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  })
})
