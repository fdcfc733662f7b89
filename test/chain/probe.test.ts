/** Finding out formats, on marks made by hand and on images that qemu-img made. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { probeFormat } from '../../src/chain/probe.ts'
import { describeWithQemu, qemuImgOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

const start = (text: string, offset = 0) => {
  const bytes = new Uint8Array(512)
  bytes.set(
    Uint8Array.from(text, (character) => character.charCodeAt(0)),
    offset,
  )
  return bytes
}

describe('the format of a disk', () => {
  it('is raw where the first bytes carry no mark, or there are too few of them', () => {
    expect(probeFormat(new Uint8Array(0))).toBe('raw')
    expect(probeFormat(new Uint8Array(512))).toBe('raw')
    expect(probeFormat(start('QFI\xfb\0\0\0\x03').subarray(0, 7))).toBe('raw')
  })

  it('tells qcow2 from its predecessor by the version', () => {
    expect(probeFormat(start('QFI\xfb\0\0\0\x01'))).toBe('qcow')
    expect(probeFormat(start('QFI\xfb\0\0\0\x02'))).toBe('qcow2')
    expect(probeFormat(start('QFI\xfb\0\0\0\x07'))).toBe('qcow2')
  })

  it('is not taken for raw where it carries the mark of another format', () => {
    expect(probeFormat(start('conectix'))).toBe('vpc')
    expect(probeFormat(start('LUKS\xba\xbe\0\x01'))).toBe('luks')
    expect(probeFormat(start('LUKS\xba\xbe\0\x02'))).toBe('raw')
    expect(probeFormat(start('\x7f\x10\xda\xbe', 0x40))).toBe('vdi')
    expect(probeFormat(start('# Disk DescriptorFile\nversion=1'))).toBe('vmdk')
  })
})

describeWithQemu('an image that qemu-img made', () => {
  it.each(['raw', 'qcow2', 'qcow', 'qed', 'vdi', 'vmdk', 'vpc', 'vhdx', 'parallels'])(
    'is known as %s',
    async (format) => {
      const path = join(tempFolder(), 'image')
      await qemuImgOk(['create', '-q', '-f', format, path, '8M'])
      expect(probeFormat(readFileSync(path).subarray(0, 512))).toBe(format)
    },
  )
})
