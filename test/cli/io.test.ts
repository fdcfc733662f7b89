/** The language of `io`: how a line is read, what is printed, and what a script does that qemu-io is not asked about. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { IoComplaint, ioNumber, ioPattern, parseIoLine } from '../../src/cli/commands/io-script.ts'
import { amountText, dumpText, reportText, terseReport } from '../../src/cli/commands/io-text.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

describe('a line of io', () => {
  const read = (line: string) => {
    const parsed = parseIoLine(line)!
    return [parsed.word.name, Object.fromEntries(parsed.options), parsed.operands]
  }

  it('is split at blanks, options and operands in any order', () => {
    expect(read('read -P 0xaa 0 64k')).toEqual(['read', { P: '0xaa' }, ['0', '64k']])
    expect(read('  r  0   64k -qv -P1')).toEqual([
      'read',
      { q: true, v: true, P: '1' },
      ['0', '64k'],
    ])
    expect(read('write -zu 0 -- 5')).toEqual(['write', { z: true, u: true }, ['0', '5']])
    expect(read('alloc 0 -1')).toEqual(['alloc', {}, ['0', '-1']])
  })

  it('may be empty', () => {
    expect(parseIoLine('   ')).toBeUndefined()
  })

  it.each([
    ['nosuch 1', 'command "nosuch" not found\n'],
    ['write 0', 'bad argument count 1 to write, expected at least 2 arguments\n'],
    ['w 0', 'bad argument count 1 to w, expected at least 2 arguments\n'],
    ['flush 1', 'bad argument count 1 to flush, expected 0 arguments\n'],
    ['alloc', 'bad argument count 0 to alloc, expected between 1 and 2 arguments\n'],
    ['write -y 0', "write: invalid option -- 'y'\n"],
    ['read 0 -P', "read: option requires an argument -- 'P'\n"],
  ])('that says %j is complained about', (line, stderr) => {
    expect(() => parseIoLine(line)).toThrow(IoComplaint)
    try {
      parseIoLine(line)
    } catch (error) {
      expect((error as IoComplaint).stderr).toBe(stderr)
    }
  })

  it('has numbers with units and bytes in any base of C', () => {
    expect(['0', '64k', '0x200', '1.5M'].map(ioNumber)).toEqual([0, 65536, 512, 1572864])
    expect(['0', '255', '0xfF', '010', '00'].map(ioPattern)).toEqual([0, 255, 255, 8, 0])
    for (const wrong of ['256', '-1', '0x', '08', 'x', '', '1.5']) {
      expect(() => ioPattern(wrong)).toThrow(`${wrong} is not a valid pattern byte`)
    }
    expect(() => ioNumber('64x')).toThrow('extraneous/unrecognized suffix -- 64x')
    expect(() => ioNumber('20E')).toThrow('Parsing error: argument too large -- 20E')
  })

  it('never fails in any other way than by a complaint', () => {
    fc.assert(
      fc.property(fc.string(), (line) => {
        try {
          parseIoLine(line)
        } catch (error) {
          expect(error).toBeInstanceOf(IoComplaint)
        }
      }),
    )
  })
})

describe('the texts of io', () => {
  it.each([
    [0, '0 bytes'],
    [1, '1 bytes'],
    [1023, '1023 bytes'],
    [9.5, '9.500000 bytes'],
    [1024, '1 KiB'],
    [1536, '1.500 KiB'],
    [65536, '64 KiB'],
    [1.5 * 2 ** 20, '1.500 MiB'],
    [2 ** 40, '1 TiB'],
    [3 * 2 ** 50, '3 PiB'],
  ])('say %d as %s', (value, text) => {
    expect(amountText(value)).toBe(text)
  })

  it('report what was done and how fast', () => {
    const done = { what: 'wrote', offset: 512, length: 65536, elapsedMs: 2 }
    expect(reportText(done)).toBe(
      'wrote 65536/65536 bytes at offset 512\n' +
        '64 KiB, 1 ops; 00.00 sec (31.250 MiB/sec and 500.0000 ops/sec)\n',
    )
    expect(terseReport(done)).toBe('65536,1,0:00:00.00,32768000.000,500.000\n')
    expect(reportText({ ...done, elapsedMs: 3_725_500 })).toContain('1 ops; 1:02:05.50 (')
  })

  it('dump sixteen bytes a line', () => {
    expect(dumpText(Buffer.from('Hello 0123456789!'), 0x1000)).toBe(
      '00001000:  48 65 6c 6c 6f 20 30 31 32 33 34 35 36 37 38 39  Hello.0123456789\n' +
        '00001010:  21  .\n',
    )
  })
})

describe('io', () => {
  it('goes on after a line that fails, and ends with 1', async () => {
    const cwd = tempFolder()
    await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd })
    const lines = ['-c', 'read -P 1 0 512', '-c', 'length', '-c', 'quit', '-c', 'map']
    const { status, stdout } = await runCli(['io', ...lines, 'a.qcow2'], { cwd })
    expect(status).toBe(1)
    expect(stdout).toMatch(/^Pattern verification failed at offset 0, 512 bytes\nread 512\/512/)
    expect(stdout).toMatch(/\n1 MiB\n$/)
  })

  it('shows a prompt only to a person', async () => {
    const cwd = tempFolder()
    await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd })
    const stdin = 'length\nlength'
    const piped = await runCli(['io', 'a.qcow2'], { cwd, stdin })
    expect(piped.stdout).toBe('1 MiB\n1 MiB\n')
    const typed = await runCli(['io', 'a.qcow2'], { cwd, stdin, isTerminal: true })
    expect(typed.stdout).toBe('io> 1 MiB\nio> 1 MiB\n')
  })

  it('does not write to an image that is open for reading', async () => {
    const cwd = tempFolder()
    await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd })
    const { status } = await runCli(['io', '-r', '-c', 'write 0 512', 'a.qcow2'], { cwd })
    expect(status).toBe(1)
    const after = await runCli(['io', '-r', '-c', 'alloc 0 1M', 'a.qcow2'], { cwd })
    expect(after.stdout).toBe('0/1048576 bytes allocated at offset 0 bytes\n')
  })

  it('says what is wrong with an image in the words of the engine', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), 'no image')
    const { status, stderr } = await runCli(['io', '-f', 'qcow2', '-c', 'map', 'a.raw'], { cwd })
    expect(status).toBe(1)
    expect(stderr).toMatch(/^cowpoint: a\.raw: /)
  })
})
