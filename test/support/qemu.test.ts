/** The wrappers say how a tool ended and what it printed, and the folders go away. */

import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { describeWithQemu, isCi, qemuImg, qemuImgOk, qemuIo, qemuIoOk, qemuNbd } from './qemu.ts'
import { tempFolder, withTempFolder } from './temp.ts'

afterEach(() => vi.unstubAllEnvs())

describe('the qemu wrappers', () => {
  it.each([
    ['true', true],
    ['1', true],
    ['', false],
    ['false', false],
  ])('take CI=%j for %j', (value, expected) => {
    vi.stubEnv('CI', value)
    expect(isCi()).toBe(expected)
  })

  it('remove a temporary folder, also after a failure', async () => {
    let kept = ''
    await expect(
      withTempFolder((folder) => {
        kept = folder
        writeFileSync(join(folder, 'file'), 'x')
        throw new Error('on purpose')
      }),
    ).rejects.toThrow('on purpose')
    expect(existsSync(kept)).toBe(false)
  })
})

describeWithQemu('the qemu wrappers with the real tools', () => {
  it('return status and texts of a failure', async () => {
    const result = await qemuImg(['info', 'missing.qcow2'], { cwd: tempFolder() })
    expect(result.status).toBe(1)
    expect(result.stderr).toContain('No such file or directory')
    await expect(qemuImgOk(['info', 'missing.qcow2'])).rejects.toThrow('ended with 1')
  })

  it('run qemu-io commands in order and see a mismatch', async () => {
    const cwd = tempFolder()
    await qemuImgOk(['create', '-f', 'qcow2', 'disk.qcow2', '1M'], { cwd })
    await qemuIoOk('disk.qcow2', ['write -P 1 0 64k', 'read -P 1 0 64k'], { cwd })
    expect((await qemuIo('disk.qcow2', ['read -P 2 0 512'], { cwd })).stdout).toContain('failed')
    await expect(qemuIoOk('disk.qcow2', ['read -P 2 0 512'], { cwd })).rejects.toThrow('failed')
    const readOnly = qemuIoOk('disk.qcow2', ['write 0 512'], { cwd, readOnly: true })
    await expect(readOnly).rejects.toThrow('read-only')
  })

  it('give standard input and return raw bytes', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'disk.raw'), Buffer.alloc(512, 0xfe))
    const result = await qemuImg(['dd', 'if=disk.raw', 'of=/dev/stdout'], { cwd })
    expect(result.signal).toBe(null)
    const { stdout } = await qemuImg(['--version'])
    expect(stdout).toContain('qemu-img version')
  })

  it('serve an image by qemu-nbd and stop it', async () => {
    const cwd = tempFolder()
    await qemuImgOk(['create', '-f', 'qcow2', 'disk.qcow2', '1M'], { cwd })
    const socket = join(cwd, 's')
    const server = await qemuNbd(socket, ['-f', 'qcow2', 'disk.qcow2'], { cwd })
    const info = await qemuImgOk(['info', '--output=json', `nbd+unix:///?socket=${socket}`])
    expect(JSON.parse(info)['virtual-size']).toBe(1048576)
    await server.stop()
    expect(server.child.exitCode !== null || server.child.signalCode !== null).toBe(true)
  })
})
