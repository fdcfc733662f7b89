/** `io` against the real qemu-io: the same scripts on the same images, all but the time that they took. */

import { execFileSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithQemu, qemuImgOk, qemuIo } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

interface Script {
  readonly title: string
  /** Arguments of `qemu-img create`, without the name. */
  readonly image: readonly string[]
  readonly lines: readonly string[]
  readonly options?: readonly string[]
}

const QCOW2 = ['-f', 'qcow2', '1M']

const SCRIPTS: readonly Script[] = [
  {
    title: 'writes and reads with patterns',
    image: QCOW2,
    lines: [
      'write -P 0xaa 0 64k',
      'read -P 0xaa 0 64k',
      'read -P 0xab 0 64k',
      'read -P 0xaa -s 1k -l 2k 0 64k',
      'read -P 0 -s 60k -l 8k 0 128k',
      'write 100k 3k',
      'read -P 0xcd 100k 3k',
      'write -P 255 -q 200k 1',
      'read -v 204796 20',
      'read -v 0 17',
      'read -v 0 0',
      'w -P 1 0 512',
      'r 0 512',
      'read -q -P 2 0 512',
      'read 0 64k -P 1',
    ],
  },
  {
    title: 'zeroes, discards and the map of what is there',
    image: QCOW2,
    lines: [
      'map',
      'write 64k 128k',
      'write -z 128k 64k',
      'write -z -u 256k 64k',
      'discard 64k 64k',
      'map',
      'alloc 0',
      'alloc 0 1M',
      'alloc 100k 100k',
      'alloc 960k 128k',
      'alloc 2M 1',
      'discard 1 5',
      'd 0 1M',
      'map',
      'flush',
      'f',
    ],
  },
  {
    title: 'compressed writes',
    image: QCOW2,
    lines: [
      'write -c -P 5 0 64k',
      'write -c 128k 128k',
      'read -P 5 0 64k',
      'write -c 100k 64k',
      'write -c 64k 512',
      'write -c 1 1',
      'write -c 0 1',
      'write -c 2M 64k',
      'map',
      'write -P 6 3k 1k',
      'read -P 5 0 3k',
      'read -P 6 3k 1k',
      'read -P 5 4k 60k',
    ],
  },
  {
    title: 'vectors, sizes, facts',
    image: QCOW2,
    lines: [
      'writev -P 3 0 512 1k',
      'readv -P 3 0 512 1k',
      'readv -v -P 4 0 512 1',
      'readv 0 512 x',
      'writev 0 512 3G',
      'length',
      'truncate 1536k',
      'l',
      'info',
      'i',
      'truncate 1537001',
      'truncate 1x',
      'truncate',
      'truncate -m nosuch 2M',
      'truncate -m full 2M',
      'map',
      'read 1M 512k',
      'read 1M 600k',
    ],
  },
  {
    title: 'the VM state',
    image: QCOW2,
    lines: [
      'write -b -P 7 0 512',
      'read -b -P 7 0 512',
      'read -b 1 5',
      'write -b 0 7',
      'write -b -z 0 512',
      'write -b -f 0 512',
      'map',
    ],
  },
  {
    title: 'what is refused',
    image: QCOW2,
    lines: [
      'read 2M 64k',
      'write 1M 1',
      'discard 1M 1',
      'write -z 1M 512',
      'write -P 300 0 64k',
      'write -P 0x1g 0 1',
      'write -P -1 0 1',
      'write -P 010 0 1',
      'read -v 0 1',
      'write 0 64x',
      'write 0',
      'write -y 0 1',
      'write 0 1 2',
      'read -1 5',
      'read 0 -P',
      'read 1.5 5',
      'read 1.5k 512',
      'read 0x1000 0x200',
      'read 20E 1',
      'read -l 5 0 10',
      'read -P 0 -l 50 0 10',
      'read 0 3G',
      'discard 0 5G',
      'write 0 3G',
      'write -u 0 1k',
      'write -n 0 1k',
      'write -z -P 1 0 1k',
      'write -f -c 0 64k',
      'write -s nosuch 0 1',
      'write -s /dev/null 0 5',
      'nosuch',
      'help nosuch',
      'help map',
      'help alloc',
      '',
      'map 3',
      'length 3',
      'alloc',
      'alloc x',
      'alloc 1 2 3',
      'flush 3',
      'quit',
      'read 0 512',
    ],
  },
  {
    title: 'a raw image',
    image: ['-f', 'raw', '1M'],
    options: ['-f', 'raw'],
    lines: [
      'write 64k 64k',
      'map',
      'alloc 0 1M',
      'info',
      'length',
      'write -c 0 64k',
      'read -b 0 512',
      'write -b 0 512',
      'write -z 0 1000',
      'discard 64k 64k',
      'read -P 0 0 1M',
      'truncate 2M',
      'length',
      'truncate 100',
      'length',
      'read 0 512',
    ],
  },
  {
    title: 'an image with extended L2 entries',
    image: ['-f', 'qcow2', '-o', 'extended_l2=on,cluster_size=32k', '1M'],
    lines: [
      'write 1k 1k',
      'write -z 5k 2k',
      'discard 0 1k',
      'map',
      'alloc 0 32k',
      'info',
      'read -P 0xcd 1k 1k',
    ],
  },
  {
    title: 'a read-only image',
    image: QCOW2,
    options: ['-r'],
    lines: ['read 0 64k', 'map'],
  },
]

/** The digits of time, which are the only ones that may differ. */
function withoutTime(text: string): string {
  return text.replace(/ops; .* sec \(.*\)$/gm, 'ops; time').replace(/^(\d+,\d+),.*$/gm, '$1,time')
}

describeWithQemu('qemu-io and cowpoint io agree', () => {
  for (const { title, image, lines, options = [] } of SCRIPTS) {
    test(title, async () => {
      const folder = tempFolder()
      const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
      await qemuImgOk(['create', '-q', ...image.slice(0, -1), theirs, image.at(-1) ?? ''])
      copyFileSync(theirs, ours)
      for (const line of lines) {
        const expected = await qemuIo(theirs, [line], {
          ...(options.includes('-f') ? { format: 'raw' } : {}),
          readOnly: options.includes('-r'),
        })
        const actual = await runCli(['io', ...options, '-c', line, ours])
        expect([line, actual.status, withoutTime(actual.stdout)]).toEqual([
          line,
          expected.status,
          withoutTime(expected.stdout),
        ])
        expect(actual.stderr === '', `${line}: ${actual.stderr}`).toBe(expected.stderr === '')
      }
      const format = options.includes('-f') ? 'raw' : 'qcow2'
      await qemuImgOk(['compare', '-f', format, '-F', format, theirs, ours])
      if (format === 'qcow2') await qemuImgOk(['check', ours])
    })
  }

  test('a script on standard input says the same but for the prompt', async () => {
    const folder = tempFolder()
    const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
    await qemuImgOk(['create', '-q', '-f', 'qcow2', theirs, '1M'])
    copyFileSync(theirs, ours)
    const script = 'write -P 3 0 512\n\nread -P 4 0 512\nfoo\nmap\nquit\nread 0 1\n'
    const expected = execOf('qemu-io', [theirs], script)
    const actual = await runCli(['io', ours], { stdin: script })
    expect(actual.status).toBe(expected.status)
    expect(withoutTime(actual.stdout)).toBe(
      withoutTime(expected.stdout.replaceAll('qemu-io> ', '').trimStart()),
    )
  })
})

function execOf(tool: string, args: string[], input: string): { status: number; stdout: string } {
  try {
    const stdout = execFileSync(tool, args, {
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    return { status: 0, stdout }
  } catch (error) {
    const { status, stdout } = error as { status: number; stdout: string }
    return { status, stdout }
  }
}
