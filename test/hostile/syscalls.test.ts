/**
 * At the level of the operating system: an image that nobody trusts leads to no path, connection or program that a harmless one would
 * not lead to. What Node and the command need themselves is learnt from a run on a harmless image.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { buildImage } from '../support/image-builder.ts'
import { builtCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'
import { AMPLIFIERS } from './amplifiers.ts'
import { describeWithStrace, traced } from './syscalls.ts'

const IMAGE = 'upload.qcow2'

/** Verbs that read what nobody vouches for. */
const VERBS: readonly (readonly string[])[] = [
  ['inspect', IMAGE],
  ['info', '--untrusted', IMAGE],
  ['map', '--untrusted', IMAGE],
  ['check', '--untrusted', IMAGE],
  ['compare', '--untrusted', IMAGE, IMAGE],
  ['checksum', '--untrusted', IMAGE],
  ['measure', '--untrusted', '-O', 'qcow2', IMAGE],
  ['diff', '--untrusted', IMAGE],
  ['chain', '--untrusted', IMAGE],
  ['snapshot', '--untrusted', '-l', IMAGE],
  ['bitmap', '--untrusted', '--dump', IMAGE, 'b0'],
  ['usage', '--untrusted', IMAGE],
  ['io', '--untrusted', '-r', '-c', 'read 0 4k', IMAGE],
  ['dd', '--untrusted', 'bs=4k', 'count=1', `if=${IMAGE}`, 'of=/dev/null'],
  ['convert', '--untrusted', '-O', 'raw', IMAGE, 'out.raw'],
]

const size = 16 * 4096
const clusterBits = 12

function backed(name: string, format: string): Uint8Array {
  return buildImage({ size, clusterBits, backing: { name, format } }).bytes
}

/** What an image can name, with the words that must not be found in any path. */
async function hostile(
  port: number,
  folder: string,
): Promise<readonly (readonly [string, Uint8Array])[]> {
  const dataFile = AMPLIFIERS.find(({ name }) => name === 'the data file "/etc/passwd"')!
  const json = '{"driver":"raw","file":{"driver":"file","filename":"/etc/canary"}}'
  return [
    ['a base', backed('canary.qcow2', 'qcow2')],
    ['a base by its path', backed('/etc/passwd', 'raw')],
    ['a json: name', backed(`json:${json}`, 'raw')],
    ['an NBD server', backed(`nbd://127.0.0.1:${port}/canary`, 'raw')],
    ['a web server', backed(`http://127.0.0.1:${port}/canary`, 'raw')],
    ['a device', backed('host_device:/dev/canary', 'raw')],
    ['a data file', readFileSync(await dataFile.make(folder))],
  ]
}

/** Numbers of processes, descriptors and random names are not the same twice. */
function plain(path: string): string {
  return path.replace(/\/proc\/\d+/, '/proc/N').replace(/\d{4,}/g, 'N')
}

describeWithStrace('what an untrusted image asks of the operating system', () => {
  test('a base of an image that is trusted is seen to be opened', async () => {
    const folder = tempFolder()
    writeFileSync(join(folder, 'canary.qcow2'), buildImage({ size, clusterBits }).bytes)
    writeFileSync(join(folder, IMAGE), backed('canary.qcow2', 'qcow2'))
    const command = [process.execPath, await builtCli(), 'info', '--backing-chain', IMAGE]
    const { paths, status } = traced(command, folder)
    expect([status, [...paths].some((path) => path.endsWith('canary.qcow2'))]).toEqual([0, true])
  }, 120_000)

  test.each(VERBS.map((words) => [words.slice(0, 1).join(' '), words] as const))(
    '%s',
    async (_name, words) => {
      const main = await builtCli()
      const folder = tempFolder()
      let callers = 0
      const server = createServer(() => {
        callers++
      })
      const port = await new Promise<number>((done) => {
        server.listen(0, '127.0.0.1', () => done((server.address() as { port: number }).port))
      })
      const run = (bytes: Uint8Array) => {
        writeFileSync(join(folder, IMAGE), bytes)
        return traced([process.execPath, main, ...words], folder)
      }
      try {
        const harmless = run(buildImage({ size, clusterBits }).bytes)
        expect([...harmless.paths].some((path) => path.endsWith(IMAGE))).toBe(true)
        expect(harmless.acts).toEqual([])
        const known = new Set([...harmless.paths].map(plain))
        // Other errors, other parts of the program; the C library asks the other when a thread gives memory back.
        const isOwn = (path: string) =>
          path.startsWith(dirname(main)) || path === '/proc/sys/vm/overcommit_memory'
        writeFileSync(join(folder, 'canary.qcow2'), backed('/etc/passwd', 'raw'))
        const all = await hostile(port, tempFolder())
        // Each verb opens its image by the same door: one of the names is enough for most.
        const some = words[0] === 'inspect' || words[0] === 'info' ? all : [all[0]!, all[6]!]
        for (const [name, bytes] of some) {
          const { paths, acts, status, stderr } = run(bytes)
          const strange = [...paths].map(plain).filter((path) => !known.has(path) && !isOwn(path))
          expect({ name, strange, acts }).toEqual({ name, strange: [], acts: [] })
          expect(
            [...paths].filter((path) => /canary|passwd/.test(path)),
            stderr,
          ).toEqual([])
          expect(status, name).not.toBe(0)
        }
        expect(callers).toBe(0)
      } finally {
        server.close()
      }
    },
    120_000,
  )
})
