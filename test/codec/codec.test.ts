import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ClusterCodec, loadCodec } from '../../src/codec/index.ts'
import { deflateCodec, zlibCodec } from '../../src/codec/zlib.ts'
import { zstdCodec, zstdEngines } from '../../src/codec/zstd.ts'
import { libdeflate } from '../../src/native/index.ts'
import { expectBytes, pattern } from '../support/device-contract.ts'
import { qemuClusters } from './qemu-clusters.ts'

const CLUSTER = 65_536

const codecs: [string, ClusterCodec][] = [['zlib', zlibCodec]]
const library = libdeflate()
if (library !== undefined) codecs.push(['zlib by libdeflate', deflateCodec(library)])
for (const engine of await zstdEngines()) {
  codecs.push([`zstd by ${engine.name}`, zstdCodec(engine)])
}

/** Words from a small list: packs well, and not to nothing. */
function text(length: number, seed: number): Uint8Array {
  const words = ['cluster', 'snapshot', ' ', 'backing', 'refcount', '\n', 'table', '0x']
  const choice = pattern(length, seed)
  let out = ''
  for (let index = 0; out.length < length; index++) out += words[choice[index]! % words.length]
  return new TextEncoder().encode(out).subarray(0, length)
}

let folder: string
let disk: Uint8Array

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowpoint-codec-'))
  disk = new Uint8Array(16 * CLUSTER)
  for (let index = 0; index < 16; index++) {
    const at = index * CLUSTER
    if (index % 4 === 1) disk.fill(index, at, at + CLUSTER)
    else if (index % 4 === 2) disk.set(pattern(CLUSTER / 2, index), at)
    else disk.set(text(CLUSTER, index), at)
  }
  writeFileSync(join(folder, 'raw'), disk)
})

afterAll(() => rmSync(folder, { recursive: true }))

it('every name loads its codec', async () => {
  expect((await loadCodec('zlib')).name).toBe('zlib')
  expect((await loadCodec('zstd')).name).toBe('zstd')
})

it('the WebAssembly engine of zstd is there whatever the host has', async () => {
  expect((await zstdEngines()).map((engine) => engine.name)).toContain('wasm')
})

describe.each(codecs)('%s', (title, codec) => {
  it('unpacks what it packed, whatever follows', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(512, 4096, CLUSTER, 2 * 1024 * 1024),
        fc.nat(1000),
        fc.uint8Array({ maxLength: 600 }),
        (length, seed, tail) => {
          const source = text(length, seed)
          const packed = codec.compress(source)
          expect(packed!.length).toBeLessThan(length)
          const target = new Uint8Array(length).fill(0xee)
          codec.decompress(Buffer.concat([packed!, tail]), target)
          expectBytes(target, source)
        },
      ),
      { numRuns: 20 },
    )
  })

  it('packs clusters of every size for whoever reads this method', () => {
    for (let length = 512; length <= 2 * 1024 * 1024; length *= 2) {
      const source = text(length, length)
      const packed = codec.compress(source)!
      for (const [reader, other] of codecs) {
        if (other.name !== codec.name) continue
        const target = new Uint8Array(length)
        other.decompress(packed, target)
        expect(Buffer.compare(target, source), `${length} bytes by ${reader}`).toBe(0)
      }
    }
  })

  it('packs on other threads to the same bytes', async () => {
    const { compressElsewhere } = codec
    if (compressElsewhere === undefined) {
      expect(title).toBe('zstd by wasm')
      return
    }
    const sources = Array.from({ length: 30 }, (_, index) => text(4096 << (index % 6), index))
    const packed = await Promise.all(sources.map((source) => compressElsewhere(source)))
    for (const [index, source] of sources.entries()) {
      expectBytes(packed[index]!, codec.compress(source)!)
    }
    expect(await compressElsewhere(pattern(CLUSTER, 5))).toBeUndefined()
  })

  it('packs nothing that would not get smaller', () => {
    expect(codec.compress(pattern(CLUSTER, 5))).toBeUndefined()
    expect(codec.compress(new Uint8Array(1))).toBeUndefined()
    expect(codec.compress(new Uint8Array(0))).toBeUndefined()
  })

  it('does not change what it packs, nor give out a buffer that it goes on using', () => {
    const source = text(CLUSTER, 1)
    const before = source.slice()
    const first = codec.compress(source)!
    const copy = first.slice()
    codec.compress(text(CLUSTER, 2))
    expectBytes(first, copy)
    expectBytes(source, before)
  })

  it('unpacks clusters that QEMU packed', () => {
    const clusters = qemuClusters(join(folder, 'raw'), join(folder, codec.name), codec.name)
    expect(clusters.length).toBeGreaterThanOrEqual(12)
    for (const { index, packed } of clusters) {
      const target = new Uint8Array(CLUSTER)
      codec.decompress(packed, target)
      expectBytes(target, disk.subarray(index * CLUSTER, (index + 1) * CLUSTER))
    }
  })

  it('packs clusters that QEMU unpacks', () => {
    const image = join(folder, `${codec.name}-ours`)
    const clusters = qemuClusters(join(folder, 'raw'), image, codec.name)
    const bytes = readFileSync(image)
    let replacedCount = 0
    clusters.forEach(({ index, offset, packed }, place) => {
      // Clusters lie close together: a sector may hold the end of one and the beginning of the
      // next.
      const room = (clusters[place + 1]?.offset ?? offset + packed.length) - offset
      const ours = codec.compress(disk.subarray(index * CLUSTER, (index + 1) * CLUSTER))
      if (ours === undefined || ours.length > room) return
      bytes.fill(0xee, offset, offset + room)
      bytes.set(ours, offset)
      replacedCount++
    })
    expect(replacedCount).toBeGreaterThan(0)
    writeFileSync(image, bytes)
    const words = ['compare', '-f', 'raw', '-F', 'qcow2', join(folder, 'raw'), image]
    expect(execFileSync('qemu-img', words, { encoding: 'utf8' })).toContain('identical')
  })

  it('says COMPRESSED_DATA where bytes are too few, too many or damaged', () => {
    const packed = codec.compress(text(CLUSTER, 3))!
    const damaged = { name: 'ImageError', code: 'COMPRESSED_DATA' }
    const bad: [Uint8Array, number][] = [
      [packed.subarray(0, packed.length / 2), CLUSTER],
      [packed, CLUSTER + 1],
      [packed, CLUSTER - 1],
      [packed, 512],
      [new Uint8Array(0), CLUSTER],
      [new Uint8Array(100), CLUSTER],
      [new Uint8Array(100).fill(0xff), CLUSTER],
    ]
    for (const [bytes, length] of bad) {
      const target = new Uint8Array(length)
      expect(() => codec.decompress(bytes, target)).toThrow(expect.objectContaining(damaged))
    }
  })

  it('unpacks on other threads what it unpacks here, and refuses the same', async () => {
    const { decompressElsewhere } = codec
    if (decompressElsewhere === undefined) {
      expect(['zlib', 'zstd by wasm', 'zstd by node']).toContain(title)
      return
    }
    const sources = Array.from({ length: 60 }, (_, index) => codec.compress(text(CLUSTER, index))!)
    for (const index of [17, 18, 40]) sources[index] = sources[index]!.slice().fill(0xff, 0, 40)
    sources[3] = sources[3]!.subarray(0, 2000)
    const ends = await Promise.allSettled(
      sources.map(async (source, index) => {
        const target = new Uint8Array(CLUSTER)
        await decompressElsewhere(source, target)
        expectBytes(target, text(CLUSTER, index))
      }),
    )
    for (const [index, end] of ends.entries()) {
      if (end.status === 'fulfilled') continue
      let here: unknown
      try {
        codec.decompress(sources[index]!, new Uint8Array(CLUSTER))
      } catch (error) {
        here = error
      }
      expect(end.reason).toMatchObject({
        code: 'COMPRESSED_DATA',
        message: (here as Error).message,
      })
    }
    expect(ends.filter((end) => end.status === 'rejected')).toHaveLength(4)
  })

  it('either unpacks or says COMPRESSED_DATA on any bytes at all', () => {
    const packed = codec.compress(text(4096, 4))!
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(packed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.nat(packed.length),
        (pokes, cut) => {
          const bytes = packed.slice(0, Math.max(cut, packed.length / 2))
          for (const [at, byte] of pokes) if (at < bytes.length) bytes[at] = byte
          try {
            codec.decompress(bytes, new Uint8Array(4096))
          } catch (error) {
            expect(error).toMatchObject({ name: 'ImageError', code: 'COMPRESSED_DATA' })
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('does not unpack a bomb further than the cluster', () => {
    const bomb = codec.compress(new Uint8Array(64 * 1024 * 1024))!
    expect(() => codec.decompress(bomb, new Uint8Array(4096))).toThrow(
      expect.objectContaining({ code: 'COMPRESSED_DATA' }),
    )
  })
})

describe('zlib', () => {
  it('reads a stream without an end by any means, as long as it fills the cluster', () => {
    const source = text(CLUSTER, 6)
    const stream = deflateRawSync(source, { windowBits: 12, finishFlush: constants.Z_SYNC_FLUSH })
    for (const [title, codec] of codecs) {
      if (codec.name !== 'zlib') continue
      const target = new Uint8Array(CLUSTER)
      codec.decompress(stream, target)
      expect(Buffer.compare(target, source), title).toBe(0)
    }
  })

  it('reaches back 4 KiB and no further, so that a reader may inflate piece by piece', () => {
    // Nothing in it repeats but what lies far back.
    const source = new Uint8Array(CLUSTER)
    for (let at = 0; at < CLUSTER; at += 8192) source.set(pattern(6000, 1), at)
    const inPieces = (packed: Uint8Array) =>
      inflateRawSync(packed, { windowBits: 12, chunkSize: 64 })
    for (const [title, codec] of codecs) {
      if (codec.name !== 'zlib') continue
      const packed = codec.compress(source)!
      expect(Buffer.compare(inPieces(packed), source), title).toBe(0)
    }
    expect(() => inPieces(deflateRawSync(source))).toThrow(/too far back/)
  })

  it('reads streams with a window of 32 KiB', () => {
    const source = new Uint8Array(CLUSTER)
    source.set(pattern(20_000, 1), 0)
    source.set(pattern(20_000, 1), 30_000)
    const packed = deflateRawSync(source, { windowBits: 15 })
    expect(packed.length).toBeLessThan(21_000)
    const target = new Uint8Array(CLUSTER)
    zlibCodec.decompress(packed, target)
    expectBytes(target, source)
  })
})
